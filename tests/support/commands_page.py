"""docs/commands.md: the help of every command and the exit codes, from the commands themselves.

`python -m tests.support.commands_page` writes the page; a test keeps it current.
"""

import contextlib
import io
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from corgi.commands import console
from corgi.flow.output import PROGRAM
from corgi.settings import errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
COLUMNS = "100"

_HEAD = """# Commands

`corgi COMMAND` starts a script of `pipelines/`; `python pipelines/SCRIPT.py` is the same without an installed `corgi`. In a checkout that `make`
set up it is `.venv/bin/corgi`. A shell completes commands, recipes and options after `source <(corgi completion bash)` (also zsh, fish).

No command colours its output, so `NO_COLOR` has nothing to switch off. Without a terminal there are no progress bars: lines at a bounded rate
take their place.

This page is written by `python -m tests.support.commands_page` from the commands themselves.

## Exit codes

Every error a user can cause is one line: what is wrong; what is safe; what to do next. Its class decides the exit code.

| code | class | meaning |
|---|---|---|
| 0 | | done |
"""
_TAIL = """| 130 | | stopped by Ctrl-C; committed work is kept |
| 141 | | the reader of the output went away, as `head` does |

Any other exit is a fault of Corgi: a traceback is on the screen or in the log.
"""


def page() -> str:
    """Return the whole page."""
    return "".join([_HEAD, *_classes(), _TAIL, *_commands()])


def _classes() -> Iterator[str]:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.CorgiError
    ]
    for kind in sorted(kinds, key=lambda kind: kind.exit_code):
        yield f"| {kind.exit_code} | `{kind.__name__}` | {(kind.__doc__ or '').splitlines()[0]} |\n"


def _commands() -> Iterator[str]:
    yield f"\n## corgi\n\n```text\n{console.overview()}\n```\n"
    for command in console.COMMANDS:
        yield f"\n## corgi {command.name}\n\n```text\n{help_of(command)}```\n"


def help_of(command: console.Command) -> str:
    """Return what `corgi COMMAND --help` prints, 100 characters wide."""
    script = console.SCRIPTS / f"{command.script}.py"
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, {PROGRAM: f"corgi {command.name}", "COLUMNS": COLUMNS}),
        mock.patch.object(sys, "argv", [str(script), *command.words, "--help"]),
        mock.patch.object(sys, "path", [str(console.SCRIPTS), *sys.path]),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
