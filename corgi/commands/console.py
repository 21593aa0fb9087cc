"""The command `corgi`: one name for the scripts of pipelines/, which do the work. Its process is replaced by that of a script."""

import difflib
import os
import sys
import textwrap
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from corgi.commands.completion import SHELLS, script_of
from corgi.flow.output import PROGRAM, until_closed
from corgi.settings.errors import SettingsError

SCRIPTS = Path(__file__).resolve().parents[2] / "pipelines"
"""Folder of the scripts: next to `corgi` in a checkout and in an installed wheel."""


@dataclass(frozen=True)
class Command:
    """One word after `corgi`: the script it starts, the arguments that precede the user's, and a line of help."""

    name: str
    usage: str
    help: str
    script: str
    words: tuple[str, ...] = ()


COMMANDS = (
    Command("new", "NAME", "write a recipe of ten lines for your own data", "new"),
    Command("plan", "RECIPE", "show what a recipe would run and cost; start nothing", "full", ("--plan",)),
    Command("run", "RECIPE", "run a recipe: finished stages are skipped, unfinished work resumes", "full"),
    Command("seeds", "RECIPE", "run a recipe once per seed of its `seeds`; intervals in the report", "seeds"),
    Command("status", "RUN", "show a run's stages, rows and bytes", "full", ("--status",)),
    Command("lineage", "RUN", "show what a run was made from", "full", ("--lineage",)),
    Command("verify", "RUN", "hash every committed file of a run", "full", ("--verify",)),
    Command("gc", "RUN", "remove files that no run under the same root refers to", "full", ("--gc",)),
    Command("generate", "RUN CAPTION ...", "paint captions with a trained run", "generate"),
    Command("generate-tables", "RUN FILE", "paint a file of captions into Parquet tables", "generate_tables"),
    Command("score", "PAINTED REAL", "score a folder of painted pictures against real ones", "score"),
    Command("index", "RUN", "make the search index of a run, for corgi serve --search", "index"),
    Command("coco", "RUN", "paint COCO's captions and measure FID as published results do", "coco"),
    Command("serve", "RUN", "open the playground and the HTTP API of a trained run", "serve"),
    Command(
        "compare", "RECIPE", "compare shifted diffusion with its baselines on a recipe's data", "compare"
    ),
    Command("export", "RUN", "write a trained prior as a diffusers folder", "export"),
    Command("export-data", "RUN", "write a run's embeddings or kept uids", "export_data"),
    Command("track", "FOLDER", "send metrics that trainings logged offline to Weights & Biases", "track"),
    Command("demo", "", "run the whole flow on emoji, as make demo does", "demo"),
)
"""In the order in which the help lists them."""

_HEAD = """usage: corgi COMMAND ...

From a list of image URLs to a text-to-image model, on one Ray cluster.
"""
_TAIL = """
  completion SHELL           print the completion script of {shells}

RECIPE is a YAML file, a run's folder, or the name of a recipe that comes with Corgi:
  {recipes}
RUN is a run's folder, such as runs/openmoji. `corgi COMMAND --help` shows the options of a command.

exit codes: 0 done, 2 wrong settings or options, 3 unusable input, 4 storage, 5 cluster, 130 stopped by Ctrl-C
"""


def main() -> int:
    """Run `corgi`; return the exit code if no script replaces this process."""
    return until_closed(lambda: _main(sys.argv[1:]))


def _main(words: list[str]) -> int:
    try:
        return _answer(words)
    except SettingsError as error:
        print(f"corgi: {error}", file=sys.stderr)
        return error.exit_code


def _answer(words: list[str]) -> int:
    first, *rest = words or ["--help"]
    if first in ("-h", "--help", "help"):
        print(overview())
        return 0
    if first in ("-V", "--version"):
        print(f"corgi {metadata.version('corgi')}")
        return 0
    if first == "completion":
        print(script_of(*rest[:1], names=[command.name for command in COMMANDS]))
        return 0
    _start(_named(first), rest)
    raise AssertionError("a started script replaces this process")


def overview() -> str:
    """Return the help of `corgi` itself."""
    lines = [f"  {f'{command.name} {command.usage}':<26} {command.help}" for command in COMMANDS]
    names = ", ".join(sorted(path.stem for path in (SCRIPTS / "recipes").glob("*.yaml")))
    recipes = textwrap.fill(names, 100, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join([_HEAD, *lines, _TAIL.strip("\n").format(shells=", ".join(SHELLS), recipes=recipes)])


def _named(name: str) -> Command:
    by_name = {command.name: command for command in COMMANDS}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, 1)
        meant = f"did you mean corgi {near[0]}?" if near else "corgi --help lists the commands"
        raise SettingsError(f"{name!r} is not a command of corgi; nothing was started; {meant}")
    return by_name[name]


def _start(command: Command, rest: list[str]) -> None:
    """Replace this process by the script; an environment variable gives it the name that its help shows."""
    os.environ[PROGRAM] = f"corgi {command.name}"
    script = str(SCRIPTS / f"{command.script}.py")
    arguments = [sys.executable, script, *command.words, *rest]
    os.execv(sys.executable, arguments)  # noqa: S606 - our own script, no shell


if __name__ == "__main__":
    sys.exit(main())
