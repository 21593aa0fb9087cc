"""What a command line asks to be painted, checked before any model is loaded."""

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
"""Before a part of a mixture that is a picture's path, not a caption."""
ShowSteps = Literal["strip", "gif"]


@dataclass(frozen=True)
class Request:
    """One command line; where several kinds of work are asked for, all are done."""

    run: str
    embedder: EmbedderName
    captions: tuple[str, ...]
    rows: tuple[Prompt, ...]
    """Rows of the file of prompts, those that cannot be painted among them."""
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
    """Return the request of a command line; its folder is made.

    Raises:
        InputError: a caption, seed, file or folder cannot be used, or nothing is asked for.
        SettingsError: a setting is out of its bounds.

    """
    told = _parser().parse_intermixed_args(argv)
    check_prompts(told.captions, told.n, told.seed)
    asked, finish = settings_of(told)
    rows = tuple(read_prompts(told.prompts, told.column)) if told.prompts else ()
    if rows and all(prompt.fault for prompt in rows):
        raise InputError(f"{told.prompts} has no row that can be painted; nothing was painted; correct it")
    if not (told.captions or rows or told.vary or told.mix or told.between):
        raise InputError("nothing is asked for; nothing was painted; name a caption or --prompts FILE")
    for part in (*told.vary, *_pictures((*told.mix, *told.between))):
        _check_file(part)
    check_prompts(
        [part for part in (*told.mix, *told.between) if not part.startswith(PICTURE_MARK)], told.n, told.seed
    )
    check_seeds(told.n, told.seed)
    _make_folder(told.out)
    return Request(
        run=told.run,
        embedder=told.embedder,
        captions=tuple(dict.fromkeys(told.captions)),
        rows=rows,
        n=told.n,
        seed=told.seed,
        out=told.out,
        asked=asked,
        finish=finish,
        show_steps=told.show_steps,
        vary=tuple(told.vary),
        mix=tuple(told.mix),
        weights=None if told.weights is None else tuple(told.weights),
        between=tuple(told.between),
        frames=told.frames,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program(), description="Paint captions with a trained run.")
    parser.add_argument("run", help="a run's folder, such as runs/openmoji")
    parser.add_argument("captions", nargs="*", metavar="caption")
    parser.add_argument(
        "--prompts", metavar="FILE", help="further captions: a .txt, .csv, .tsv or .parquet file"
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
    """Add what each picture is painted with, and what is done to it; the recipe's values if not given."""
    samplers = get_args(SamplerName)
    group = parser.add_argument_group("how it is painted; what is not given is as the run's recipe says")
    group.add_argument("--steps", type=int, help="steps of the decoder")
    group.add_argument("--sampler", choices=samplers, help="sampler of the decoder")
    group.add_argument("--guidance", type=float, help="guidance of the decoder; 1: none")
    group.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="shares of T between which the decoder's guidance is used",
    )  # fmt: skip
    group.add_argument("--prior-steps", type=int, help="steps of the prior")
    group.add_argument("--prior-sampler", choices=samplers, help="sampler of the prior")
    group.add_argument("--prior-guidance", type=float, help="guidance of the prior; 1: none")
    group.add_argument(
        "--prior-candidates", type=int, help="image embeddings per picture, the closest to the text kept"
    )
    group.add_argument(
        "--best-of",
        type=int,
        default=1,
        help="pictures painted for each one kept, the closest to the caption by CLIP",
    )
    group.add_argument("--autocontrast", action="store_true", help="stretch each channel to the whole range")
    group.add_argument("--sharpness", type=float, default=1.0, help="factor of sharpness; 1: as painted")
    group.add_argument("--enlarge", action="store_true", help="double both sides")


def settings_of(told: argparse.Namespace) -> tuple[PaintSettings, FinishSettings]:
    """Return what the flags of `add_settings` ask for.

    Raises:
        SettingsError: a value is out of its bounds.

    """
    asked = painting(**{name: getattr(told, name) for name in PaintSettings.model_fields})
    return asked, finishing(**{name: getattr(told, name) for name in FinishSettings.model_fields})


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    """Add what may be painted beside captions. A part is a caption, or @PATH of a picture."""
    group = parser.add_argument_group("what is painted beside captions")
    group.add_argument(
        "--show-steps",
        choices=get_args(ShowSteps),
        help="also each caption's picture after every step of the decoder",
    )
    group.add_argument("--vary", nargs="+", default=[], metavar="PICTURE", help="variations of pictures")
    group.add_argument("--mix", nargs="+", default=[], metavar="PART", help="captions and @PICTURES mixed")
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
        raise InputError(f"{path} is no file; nothing was painted; name a picture")


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
