"""Captions to pictures with a trained run: `python pipelines/generate.py runs/openmoji "red heart" --n 4 --seed 0 --out DIR`."""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.settings.errors import CorgiError, InputError


def main() -> int:
    """Write n PNG files a caption and print their paths; return the exit code."""
    parser = argparse.ArgumentParser(description="Paint captions with a trained run.")
    parser.add_argument("run", help="a run's folder, such as runs/openmoji")
    parser.add_argument("captions", nargs="+", metavar="caption")
    parser.add_argument("--n", type=int, default=1, help="pictures a caption")
    parser.add_argument("--seed", type=int, default=0, help="first seed; picture i uses seed + i")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder of the PNG files")
    arguments = parser.parse_args()
    try:
        _write(arguments)
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _write(arguments: argparse.Namespace) -> None:
    import corgi

    generator = corgi.load(arguments.run)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {arguments.out}: {error.strerror}; nothing was written; name a folder you may write"
        ) from error
    for caption in arguments.captions:
        name = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-") or "caption"
        for index, picture in enumerate(generator.generate(caption, arguments.n, arguments.seed)):
            path = arguments.out / f"{name}-{arguments.seed + index}.png"
            picture.save(path)
            print(path)


if __name__ == "__main__":
    sys.exit(main())
