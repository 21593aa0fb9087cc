"""A first recipe for your own data: `python pipelines/new.py NAME [--source PATH ...] [--captions COLUMN] [--tower own] [--gpu]`.

In a terminal the command asks for what no option sets; elsewhere the default is used.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.commands.starter import NO_CAPTIONS, TOWERS, Answers, commands, recipe_text
from corgi.flow.output import program, until_closed
from corgi.settings.errors import CorgiError, SettingsError


def main() -> int:
    """Write NAME.yaml and print the commands to run next; return the exit code."""
    arguments = _parser().parse_args()
    try:
        answers = _answers(arguments)
        path = _write(arguments.out or Path(f"{answers.name}.yaml"), recipe_text(answers))
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except (EOFError, KeyboardInterrupt):
        print("stopped; nothing was written; run the same command again", file=sys.stderr)
        return 130
    print(f"wrote {path}; next:")
    for command in commands(answers, str(path)):
        print(f"  {command}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(), description="Write a recipe of ten lines for your own data."
    )
    parser.add_argument("name", help="name of the run; the recipe is NAME.yaml")
    parser.add_argument(
        "--source",
        nargs="+",
        metavar="PATH",
        help="lists of URLs, folders of images, tars: paths, globs or s3:// URIs",
    )
    parser.add_argument(
        "--captions",
        metavar="COLUMN",
        help=f"column of the captions in a list (default: caption); {NO_CAPTIONS}: there are none",
    )
    parser.add_argument(
        "--tower",
        choices=TOWERS,
        help="CLIP model. own: trained on your data from packaged backbones (default); public: open_clip's ViT-B-32, which is downloaded",
    )
    parser.add_argument(
        "--gpu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="sizes for a GPU cluster (default: for two CPU cores)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: NAME.yaml)")
    return parser


def _answers(arguments: argparse.Namespace) -> Answers:
    sources = (
        arguments.source or _asked("Source: a list of URLs, a folder of images or tars", "images").split()
    )
    captions = arguments.captions or _asked(
        f"Column of the captions in a list; {NO_CAPTIONS}: there are none", "caption"
    )
    tower = arguments.tower or _asked(
        "CLIP model: own (trained on your data) or public (downloaded)",
        "public" if captions == NO_CAPTIONS else "own",
    )
    gpu = _asked("GPUs? yes or no", "no").lower() in ("y", "yes") if arguments.gpu is None else arguments.gpu
    if tower not in TOWERS:
        raise SettingsError(
            f"tower {tower!r} is not known; nothing was written; name one of {', '.join(TOWERS)}"
        )
    return Answers(arguments.name, tuple(sources), captions, tower, gpu)


def _asked(question: str, default: str) -> str:
    """Return the typed answer, or the default without a terminal."""
    if not sys.stdin.isatty():
        return default
    return input(f"{question} [{default}]: ").strip() or default


def _write(path: Path, text: str) -> Path:
    """Write a new file.

    Raises:
        SettingsError: it exists already or cannot be written.

    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror}; nothing was written; name another file with --out"
        ) from error
    return path


if __name__ == "__main__":
    sys.exit(until_closed(main))
