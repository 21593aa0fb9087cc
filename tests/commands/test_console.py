"""The command `corgi`: every script has a name, a wrong one is one line, and a script shows its help under that name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from corgi.commands import console

HOME = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def corgi(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corgi.commands", *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=HOME,
        env={**os.environ, **variables},
        check=False,
    )


def test_every_script_has_a_command_or_is_one_stage():
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (HOME / "pipelines").glob("*.py")}
    of_one_stage = {name for name, text in texts.items() if "full.main(only=" in text}
    assert len(of_one_stage) >= 10
    assert {command.script for command in console.COMMANDS} == set(texts) - of_one_stage


def test_the_overview_names_every_command_recipe_and_exit_code():
    text = console.overview()
    assert [command.name for command in console.COMMANDS if f"\n  {command.name} " not in text] == []
    assert [
        path.stem for path in (HOME / "pipelines" / "recipes").glob("*.yaml") if path.stem not in text
    ] == []
    assert all(f"{code} " in text.splitlines()[-1] for code in (0, 2, 3, 4, 5, 130))
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize(
    ("word", "advice"), [("genrate", "did you mean corgi generate?"), ("xyzzy", "corgi --help")]
)
def test_an_unknown_command_is_one_line(monkeypatch, capsys, word, advice):
    monkeypatch.setattr(sys, "argv", ["corgi", word])
    assert console.main() == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert advice in err


def test_a_script_is_started_with_its_words_first_and_told_its_name(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: started.append((program, arguments)))
    monkeypatch.setenv("CORGI_PROGRAM", "")
    monkeypatch.setattr(sys, "argv", ["corgi", "status", "runs/a", "root=b"])
    with pytest.raises(AssertionError):
        console.main()
    script = str(HOME / "pipelines" / "full.py")
    assert started == [(sys.executable, [sys.executable, script, "--status", "runs/a", "root=b"])]
    assert os.environ["CORGI_PROGRAM"] == "corgi status"


def test_help_of_a_command_speaks_of_corgi_and_without_colour():
    done = corgi("status", "--help", FORCE_COLOR="1", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: corgi status ")
    assert "\x1b" not in done.stdout
    assert re.search(r"exit codes: 0 done, 2 .*, 3 .*, 4 .*, 5 .*, 130", " ".join(done.stdout.split()))


def test_the_exit_code_of_the_script_is_the_commands(tmp_path):
    done = corgi("plan", str(tmp_path / "no.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("SettingsError: recipe ")
