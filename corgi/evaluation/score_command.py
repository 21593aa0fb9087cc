"""The command line that scores a folder of pictures against another one."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from corgi.flow.output import program
from corgi.names import JudgeName
from corgi.settings.errors import CorgiError, InputError
from corgi.storage.errors import storage_full


def main(argv: Sequence[str] | None = None) -> int:
    """Print the scores as JSON; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        text = json.dumps(_scored(options), indent=1)
        print(text)
        if options.out is not None:
            _write(options.out, text + "\n")
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(), description="Score a folder of painted pictures against real ones."
    )
    parser.add_argument(
        "painted", help="folder of painted pictures; captions as generate.py writes them, or .txt files"
    )
    parser.add_argument("real", help="folder of real pictures")
    parser.add_argument("--inception", metavar="FILE", help="torch-fidelity's Inception weights: FID and KID")
    parser.add_argument("--inception-sha256", metavar="HEX", help="sha256 that this file must have")
    parser.add_argument(
        "--judge", choices=get_args(JudgeName), help="a frozen network from an installed package"
    )
    parser.add_argument("--run", help="a run whose CLIP towers judge pictures and captions")
    parser.add_argument(
        "--side",
        type=int,
        help="shorter side of all pictures, px, then centre crop; unchanged if not given",
    )
    parser.add_argument(
        "--training",
        metavar="FOLDER",
        help="pictures that the painter was trained on, to print the share of copies; needs --held-out",
    )
    parser.add_argument(
        "--held-out", metavar="FOLDER", help="pictures of the same kind that it was not trained on"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the scores to this file")
    return parser


def _scored(options: argparse.Namespace) -> dict[str, object]:
    """Return the requested scores.

    Raises:
        InputError: a folder, file or run cannot be used.

    """
    if (options.training is None) != (options.held_out is None):
        raise InputError("--training and --held-out belong together; nothing was scored; name both or none")
    if options.side is not None and options.side < 8:
        raise InputError(f"--side={options.side} is too small; nothing was scored; name at least 8 px")
    from corgi.evaluation.folder_scores import Networks, copies, scores
    from corgi.evaluation.folders import read_folder
    from corgi.evaluation.inception import load_inception
    from corgi.evaluation.judges import load_judge
    from corgi.inference.loading import load

    inception = load_inception(options.inception, options.inception_sha256) if options.inception else None
    generator = load(options.run) if options.run else None
    towers = () if generator is None else generator.towers
    judge = load_judge(options.judge, towers) if options.judge else None
    networks = Networks(judge, inception, generator)
    painted, real = (read_folder(path, options.side) for path in (options.painted, options.real))
    resize = "none" if options.side is None else f"{options.side} px, Pillow bicubic, antialias, centre crop"
    figures = {"resize before the networks": resize, **scores(painted, real, networks)}
    if options.training is not None:
        training, held_out = (
            read_folder(path, options.side) for path in (options.training, options.held_out)
        )
        figures["memorisation"] = copies(painted, training, held_out, networks)[1]
    return figures


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        storage_full(error, path)
