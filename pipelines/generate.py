"""Captions to pictures with a trained run: `python pipelines/generate.py runs/openmoji "red heart" --n 4 --seed 0 --out DIR`."""

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import until_closed
from corgi.inference.prompts import NEIGHBOURS, check_prompts, file_name
from corgi.settings.errors import CorgiError, InputError
from corgi.storage.errors import storage_full


def main() -> int:
    """Write n PNG files per caption and print their paths; return the exit code."""
    parser = argparse.ArgumentParser(description="Paint captions with a trained run.")
    parser.add_argument("run", help="a run's folder, such as runs/openmoji")
    parser.add_argument("captions", nargs="+", metavar="caption")
    parser.add_argument("--n", type=int, default=1, help="pictures per caption")
    parser.add_argument("--seed", type=int, default=0, help="first seed, 0..2^63-1; picture i uses seed + i")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder of the PNG files")
    arguments = parser.parse_args()
    try:
        _write(arguments)
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _write(arguments: argparse.Namespace) -> None:
    check_prompts(arguments.captions, arguments.n, arguments.seed)
    _make_folder(arguments.out)
    import corgi

    generator = corgi.load(arguments.run)
    for caption in dict.fromkeys(arguments.captions):
        for index, picture in enumerate(generator.generate(caption, arguments.n, arguments.seed)):
            path = arguments.out / file_name(caption, arguments.seed + index, generator.models)
            _save(picture, path)
            print(path)


def _make_folder(folder: Path) -> None:
    """Make a folder and try to write in it, before anything is loaded.

    Raises:
        InputError: it cannot be made or written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"--out {folder}: {error.strerror}; nothing was painted; name a folder you may write"
        ) from error


def _save(picture: Image.Image, path: Path) -> None:
    about = PngInfo()
    if NEIGHBOURS in picture.info:
        about.add_text(NEIGHBOURS, str(picture.info[NEIGHBOURS]))
    try:
        picture.save(path, pnginfo=about)
    except OSError as error:
        path.unlink(missing_ok=True)
        storage_full(error, path)


if __name__ == "__main__":
    sys.exit(until_closed(main))
