"""README and docs: every command of ours is one that the real parsers take, links lead somewhere, figures are in the results.

What costs minutes is run elsewhere: `make demo` by tests/trained after it, `make smoke` and its flags by tests/flows, `corgi new`
to `corgi run` by tests/web, the launchers' files by tests/cluster; the rest of the `make` targets are slow suites of their own.
"""

import argparse
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from corgi.commands import console
from corgi.settings.recipe import RECIPES, load
from tests.support import commands_page, documented
from tests.support.documented import HOME, Shown

TARGETS = re.findall(r"^([a-z][a-z0-9%-]*):", (HOME / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
COMMANDS = {command.name: command for command in console.COMMANDS}
pytestmark = pytest.mark.slow
PLACEHOLDER = re.compile(r"^[A-Z][A-Z_]*$")


class ParsedError(Exception):
    """What a parser made of a command line; nothing after it runs."""


def parsed(script: str, words: list[str]) -> argparse.Namespace:
    """Return what a script's own parser makes of words; SystemExit when it refuses them."""
    found: list[argparse.Namespace] = []

    def stop(method):
        def parse(self, args=None, namespace=None):
            found.append(method(self, args, namespace))
            raise ParsedError

        return parse

    whole, mixed = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_intermixed_args
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop(whole)),
        mock.patch.object(argparse.ArgumentParser, "parse_intermixed_args", stop(mixed)),
        mock.patch.object(sys, "argv", [script, *words]),
        mock.patch.object(sys, "path", [str(console.SCRIPTS), *sys.path]),
        mock.patch.dict(os.environ),
        pytest.raises(ParsedError),
    ):
        runpy.run_path(str(console.SCRIPTS / script), run_name="__main__")
    return found[0]


def check(shown: Shown) -> None:
    """Fail unless the command is one that exists and is taken as it is written."""
    program, *words = shown.words
    if program == "make":
        check_make(words)
    elif shown.words[1:2] == ("-m",):
        assert importlib.util.find_spec(shown.words[2]), shown
    elif program == "python":
        check_script(words[0].removeprefix("pipelines/"), words[1:])
    elif words and words[0] not in ("completion", "COMMAND", "--help", "--version"):
        command = COMMANDS[words[0]]
        check_script(f"{command.script}.py", [*command.words, *words[1:]])


def check_make(words: list[str]) -> None:
    targets = [word for word in words if "=" not in word]
    for target in targets:
        forms = [form.replace("%", "[a-zA-Z0-9_-]+") for form in TARGETS]
        assert any(re.fullmatch(form, target) for form in forms), target


def check_script(script: str, words: list[str]) -> None:
    assert (console.SCRIPTS / script).is_file() or script in ("SCRIPT.py", "STAGE.py"), script
    if not words or "..." in words or any("[" in word and "=" not in word for word in words):
        return  # named, or a synopsis
    if script in ("coco.py", "demo.py", "download.py", "track.py") or "SCRIPT" in script:
        return  # they hand words on, or ask whether a folder is there
    arguments = parsed(script, words)
    recipe = getattr(arguments, "recipe", None)
    if (
        recipe is not None
        and not PLACEHOLDER.match(recipe)
        and ((HOME / recipe).is_file() or (RECIPES / f"{recipe}.yaml").is_file())
    ):
        load(recipe, arguments.overrides)


def test_commands_are_found_in_blocks_lines_and_text():
    shown = {command.line for command in documented.commands() if command.page == "README.md"}
    assert {"make demo", "make play", "corgi run mine.yaml", "corgi new mine --source images/"} <= shown
    assert (
        "python pipelines/full.py laion-b32 root=/mnt/corgi/runs plan.input=/mnt/corgi/list.parquet" in shown
    )
    assert len(documented.commands()) > 60


@pytest.mark.parametrize("page", sorted({shown.page for shown in documented.commands()}))
def test_every_command_of_a_page_is_taken(page, monkeypatch):
    monkeypatch.chdir(HOME)
    refused = []
    for shown in documented.commands():
        if shown.page == page:
            try:
                check(shown)
            except (AssertionError, SystemExit, Exception) as error:
                refused.append(f"{shown.line}: {type(error).__name__} {error}")
    assert refused == []


@pytest.mark.parametrize(
    "line",
    [
        "corgi genrate x",
        "make demmo",
        "python pipelines/fll.py x",
        "corgi run x --onyl embed",
        "corgi run smoke prior.wdth=3",
    ],
)
def test_a_wrong_command_would_be_refused(line, monkeypatch):
    monkeypatch.chdir(HOME)
    with pytest.raises((AssertionError, KeyError, SystemExit, Exception)):
        check(Shown("x.md", tuple(shlex.split(line))))


def test_the_cheap_ones_run(tmp_path):
    for words in (["--help"], ["--version"], ["completion", "bash"], ["new", "mine", "--source", "images/"]):
        done = subprocess.run([sys.executable, "-m", "corgi.commands", *words], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout
    assert (tmp_path / "mine.yaml").is_file()


@pytest.mark.parametrize("page", documented.PAGES, ids=lambda page: page.relative_to(HOME).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def row_of(text: str, *starts_with: str) -> list[str]:
    """Return the figures of the first table row with some first cells, those of an interval left out."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    found = next(row for row in rows if tuple(row[: len(starts_with)]) == starts_with)
    return [cell.split(" ")[0] for cell in found[len(starts_with) :]]


def test_figures_of_the_demo_on_the_front_page_are_those_of_its_tables():
    readme = (HOME / "README.md").read_text(encoding="utf-8").partition("## Results")[2]
    demo = (HOME / "docs" / "results.md").read_text(encoding="utf-8").partition("<!-- figures: demo -->")[2]
    priors = (("shifted", "8"), ("text embedding, no training", ""), ("softmax average, no training", ""))
    copies = [(name, "independent", "from prior") for name in ("HELD-OUT PAIR", "HELD-OUT CONCEPT")]
    told = [line.split("|")[-2] for line in readme.splitlines() if "| `make demo` |" in line]
    assert [re.findall(r"\d\.\d{3}", cell) for cell in told] == [
        [row_of(demo, "text to image")[0]],
        [row_of(demo, *prior)[0] for prior in priors],
        [row_of(demo, *picture)[0] for picture in copies],
    ]


def test_the_front_page_fits_three_screens():
    assert len((HOME / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_page_of_commands_is_current():
    assert commands_page.PAGE.read_text(encoding="utf-8") == commands_page.page()
