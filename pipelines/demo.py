"""Serve emoji in several art styles on loopback and run the whole flow on them.

    python pipelines/demo.py [options] [key.path=value ...]

Arguments other than --recipe, --pipeline, --data, --pictures, --port and --work are passed to full.py unchanged.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.demo.iconify_styles import fetched_styles
from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import Collection, subset
from corgi.demo.raster import folder_name, rasterise
from corgi.demo.site import DEFAULT_PORT, Site
from corgi.demo.url_list import HOST, write_url_list
from corgi.flow.output import program, until_closed
from corgi.settings.errors import CorgiError
from corgi.settings.recipe import load

PIPELINES = Path(__file__).resolve().parent
DEFAULT_RECIPE = PIPELINES / "recipes" / "openmoji.yaml"
DEFAULT_WORK = Path("runs/openmoji-site")
DISK = "under 1 GB below runs/ for the packaged pictures; Ctrl-C stops, and the same command resumes"
"""Measured after `make demo` with `du`: 817 MB with the tables of `make smoke`."""


def main(arguments: list[str]) -> int:
    """Prepare and open the site, run the flow against it, and return the flow's exit code."""
    options, for_flow = _parser().parse_known_args(arguments)
    is_whole = options.pipeline == "full" and not any(word.startswith("-") for word in for_flow)
    for line in _announced(options.recipe) if is_whole else ():
        print(line, flush=True)
    collection = packaged() if options.data == "packaged" else fetched_styles(options.work / "npm")
    pictures = (
        collection.pictures if options.pictures is None else subset(collection.pictures, options.pictures)
    )
    folder = options.work / folder_name(collection)
    url_list = options.work / f"urls-{len(pictures)}.parquet"
    num_rendered = rasterise(pictures, folder)
    num_rows = write_url_list(url_list, pictures, collection.credit)
    with Site(folder, options.port) as site:
        print(
            f"{len(pictures)} pictures, {num_rendered} rendered now, {num_rows} rows, http://{site.address}"
        )
        print(collection.credit, flush=True)
        code = _run_flow(options, url_list, site, collection, for_flow)
    if code == 0 and is_whole:
        for line in _what_next(options.recipe, for_flow):
            print(line)
    return code


def _announced(recipe: Path) -> list[str]:
    """Return what a run will need: the recipe's comment on its cost, and the disk space for the packaged pictures."""
    lines = recipe.read_text(encoding="utf-8").splitlines() if recipe.is_file() else []
    costs = [line.removeprefix("# Cost:").strip() for line in lines if line.startswith("# Cost:")]
    return [f"this takes: {cost}" for cost in costs[:1]] + [f"disk: {DISK}"] * bool(costs)


def _what_next(recipe: Path, for_flow: list[str]) -> list[str]:
    """Return three commands to run after a finished run, with the `corgi` of this environment."""
    settings = load(recipe, for_flow)
    run = f"{settings.root}/{settings.name}"
    corgi = min(
        f"{Path(sys.executable).parent}/corgi",
        os.path.relpath(f"{Path(sys.executable).parent}/corgi"),
        key=len,
    )
    return [
        "next:",
        f"  {corgi} serve {run}",
        f'  {corgi} generate {run} "red heart" --n 4',
        f"  {corgi} new mine --source FOLDER",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program() or "pipelines/demo.py",
        usage="%(prog)s [options] [key.path=value ...]",
        description="Serve emoji on loopback and run the whole flow on them; other arguments are passed to the flow's script unchanged.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--recipe", type=Path, default=DEFAULT_RECIPE, help="recipe of the flow (default: openmoji.yaml)")
    option("--pipeline", choices=("full", "compare"), default="full", help="flow to run (default: full)")
    option(
        "--data",
        choices=("packaged", "iconify"),
        default="packaged",
        help="packaged: two styles from Python packages; iconify: six styles, fetched by npm (default: packaged)",
    )
    option("--pictures", type=_positive, metavar="N", help="use at most N pictures (default: all)")
    option("--port", type=_port, default=DEFAULT_PORT, help="loopback port (default: %(default)s)")
    option("--work", type=Path, default=DEFAULT_WORK, help="folder of the site (default: %(default)s)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (1 to 65535)")
    return int(text)


def _run_flow(
    options: argparse.Namespace, url_list: Path, site: Site, collection: Collection, for_flow: list[str]
) -> int:
    """Run the flow in this terminal and forward signals to it, so that it can stop with only committed work left."""
    command = [
        *(sys.executable, str(PIPELINES / f"{options.pipeline}.py"), str(options.recipe)),
        f"plan.input={url_list}",
        f'download.resolve=["{HOST}:80={site.address}"]',
        f'download.allow_private=["{site.address}"]',
        f"plan.credit={collection.credit}",
        *for_flow,
    ]
    # The flow also holds the lifeline: if only this process is killed, the fetchers do not lose the site.
    with subprocess.Popen(command, pass_fds=(site.lifeline,)) as flow:

        def hand_on(number: int, frame: FrameType | None) -> None:
            # A terminal sends Ctrl-C to the flow as well; a second signal would interrupt its orderly shutdown.
            if number != signal.SIGINT or not _is_in_foreground():
                flow.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, hand_on)
        code = flow.wait()
    return code if code >= 0 else 128 - code


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False


if __name__ == "__main__":
    try:
        sys.exit(until_closed(lambda: main(sys.argv[1:])))
    except CorgiError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(
            "demo: stopped before the flow began; rendered pictures are kept; run again to resume",
            file=sys.stderr,
        )
        sys.exit(128 + signal.SIGINT)
