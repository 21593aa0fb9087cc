"""The request of a command line, checked before any model is loaded."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from corgi.flow.output import program
from corgi.inference.prompt_files import COLUMN, Prompt, read_prompts
from corgi.inference.prompts import check_prompts, check_seeds
from corgi.names import EmbedderName, SamplerName
from corgi.settings.errors import InputError
from corgi.settings.painting import FinishSettings, PaintSettings, finishing, painting

PICTURE_MARK = "@"
"""Prefix of a part of a mixture that is a picture's path instead of a caption."""
ShowSteps = Literal["strip", "gif"]


@dataclass(frozen=True)
class Request:
    """One command line; if it requests several kinds of work, all are done."""

    run: str
    embedder: EmbedderName
    captions: tuple[str, ...]
    rows: tuple[Prompt, ...]
    """Rows of the file of prompts, including those that cannot be painted."""
    n: int
    seed: int
    out: Path
    asked: PaintSettings
    finish: FinishSettings
    show_steps: ShowSteps | None
    vary: tuple[str, ...]
    mix: tuple[str, ...]
    weights: tuple[float, ...] | None
    between: tuple[str, ...]
    frames: int


def request_of(argv: Sequence[str] | None) -> Request:
    """Return the request of a command line after checking it, and create its output folder.

    Raises:
        InputError: a caption, seed, file or folder cannot be used, or nothing is requested.
        SettingsError: a setting is out of bounds.

    """
    options = _parser().parse_intermixed_args(argv)
    check_prompts(options.captions, options.n, options.seed)
    asked, finish = settings_of(options)
    rows = tuple(read_prompts(options.prompts, options.column)) if options.prompts else ()
    if rows and all(prompt.fault for prompt in rows):
        raise InputError(
            f"{options.prompts} has no row that can be painted; nothing was painted; correct the file"
        )
    if not (options.captions or rows or options.vary or options.mix or options.between):
        raise InputError("no caption was given; nothing was painted; name a caption or --prompts FILE")
    for part in (*options.vary, *_pictures((*options.mix, *options.between))):
        _check_file(part)
    check_prompts(
        [part for part in (*options.mix, *options.between) if not part.startswith(PICTURE_MARK)],
        options.n,
        options.seed,
    )
    check_seeds(options.n, options.seed)
    _make_folder(options.out)
    return Request(
        run=options.run,
        embedder=options.embedder,
        captions=tuple(dict.fromkeys(options.captions)),
        rows=rows,
        n=options.n,
        seed=options.seed,
        out=options.out,
        asked=asked,
        finish=finish,
        show_steps=options.show_steps,
        vary=tuple(options.vary),
        mix=tuple(options.mix),
        weights=None if options.weights is None else tuple(options.weights),
        between=tuple(options.between),
        frames=options.frames,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program(), description="Paint captions with a trained run.")
    parser.add_argument("run", help="a run's folder, such as runs/openmoji")
    parser.add_argument("captions", nargs="*", metavar="caption")
    parser.add_argument(
        "--prompts", metavar="FILE", help="more captions: a .txt, .csv, .tsv or .parquet file"
    )
    parser.add_argument(
        "--column", default=COLUMN, help=f"column of the captions in FILE; {COLUMN} if not given"
    )
    parser.add_argument("--n", type=int, default=1, help="pictures per caption")
    parser.add_argument("--seed", type=int, default=0, help="first seed, 0..2^63-1; picture i uses seed + i")
    parser.add_argument(
        "--embedder",
        choices=get_args(EmbedderName),
        default="prior",
        help="what turns captions into image embeddings",
    )
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder of the PNG files")
    add_settings(parser)
    _add_kinds(parser)
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options for painting each picture and for processing it; the defaults are the recipe's values."""
    samplers = get_args(SamplerName)
    group = parser.add_argument_group("how pictures are painted; defaults are those of the run's recipe")
    group.add_argument("--steps", type=int, help="steps of the decoder")
    group.add_argument("--sampler", choices=samplers, help="sampler of the decoder")
    group.add_argument("--guidance", type=float, help="guidance of the decoder; 1: none")
    group.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="range of t, as fractions of T, in which the decoder's guidance is used",
    )  # fmt: skip
    group.add_argument("--prior-steps", type=int, help="steps of the prior")
    group.add_argument("--prior-sampler", choices=samplers, help="sampler of the prior")
    group.add_argument("--prior-guidance", type=float, help="guidance of the prior; 1: none")
    group.add_argument(
        "--prior-candidates",
        type=int,
        help="image embeddings sampled per picture; the closest to the text is kept",
    )
    group.add_argument(
        "--best-of",
        type=int,
        default=1,
        help="pictures painted for each one kept; the closest to the caption by CLIP is kept",
    )
    group.add_argument("--autocontrast", action="store_true", help="stretch each channel to the full range")
    group.add_argument("--sharpness", type=float, default=1.0, help="sharpness factor; 1: unchanged")
    group.add_argument("--enlarge", action="store_true", help="double both sides")


def settings_of(options: argparse.Namespace) -> tuple[PaintSettings, FinishSettings]:
    """Return the settings from the flags of `add_settings`.

    Raises:
        SettingsError: a value is out of bounds.

    """
    asked = painting(**{name: getattr(options, name) for name in PaintSettings.model_fields})
    return asked, finishing(**{name: getattr(options, name) for name in FinishSettings.model_fields})


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    """Add the options for painting other things than captions. A part is a caption, or @PATH of a picture."""
    group = parser.add_argument_group("what else is painted; a PART is a caption, or @PATH of a picture")
    group.add_argument(
        "--show-steps",
        choices=get_args(ShowSteps),
        help="also save each caption's picture after every step of the decoder",
    )
    group.add_argument("--vary", nargs="+", default=[], metavar="PICTURE", help="variations of pictures")
    group.add_argument(
        "--mix", nargs="+", default=[], metavar="PART", help="a mixture of captions and pictures"
    )
    group.add_argument(
        "--weights", nargs="+", type=float, help="weights of the parts of --mix; equal if not given"
    )
    group.add_argument(
        "--between", nargs=2, default=[], metavar="PART", help="a strip from one part to another"
    )
    group.add_argument("--frames", type=int, default=8, help="pictures of --between")


def _pictures(parts: Sequence[str]) -> list[str]:
    return [part.removeprefix(PICTURE_MARK) for part in parts if part.startswith(PICTURE_MARK)]


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file; nothing was painted; name a picture")


def _make_folder(folder: Path) -> None:
    """Make a folder and check that it can be written, before anything is loaded.

    Raises:
        InputError: it cannot be made or written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"--out {folder}: {error.strerror}; nothing was painted; name a folder that you may write"
        ) from error
