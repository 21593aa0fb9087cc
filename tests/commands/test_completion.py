"""Completion in a shell: what bash offers after `corgi`, in a real bash."""

import shutil
import subprocess

import pytest

from corgi.commands.completion import SHELLS, script_of
from corgi.settings.errors import SettingsError

NAMES = ["run", "generate", "gc"]


def offered(*words: str) -> list[str]:
    """Return what the script offers for the last word, in a bash that has no `corgi`."""
    text = f"{script_of('bash', names=NAMES)}\nCOMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; _corgi; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("corgi", "g"), ["generate", "gc"]),
        (("corgi", "completion", ""), list(SHELLS)),
        (("corgi", "zz"), []),
    ],
)
def test_bash_offers_commands_and_shells(words, expected):
    assert offered(*words) == expected


def test_bash_offers_files_for_a_recipe(tmp_path):
    (tmp_path / "my.yaml").touch()
    assert offered("corgi", "run", f"{tmp_path}/m") == [f"{tmp_path}/my.yaml"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script():
    subprocess.run(["zsh", "-n"], input=script_of("zsh", names=NAMES), text=True, check=True)


def test_every_shell_has_a_script_with_every_name_and_another_shell_is_one_line():
    for shell in SHELLS:
        assert " ".join(NAMES) in script_of(shell, names=NAMES)
        assert "@" not in script_of(shell, names=NAMES).replace("[@]", "")
    with pytest.raises(SettingsError, match="tcsh"):
        script_of("tcsh", names=NAMES)
