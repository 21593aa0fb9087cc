"""The command line of COCO's FID: choose captions, paint them as tables, compare with the real images."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corgi.flow.output import program
from corgi.inference import bulk_command
from corgi.settings.errors import CorgiError, InputError
from corgi.tables.run import Run

if TYPE_CHECKING:
    from corgi.evaluation.coco import Caption


def main(argv: Sequence[str] | None = None) -> int:
    """Paint the captions that are not painted yet and print the scores as JSON; return the exit code."""
    options, painting = _parser().parse_known_args(argv)
    try:
        from corgi.evaluation.coco import chosen, named, read_annotations, read_ids, write_captions

        captions = read_annotations(options.annotations)
        selected = (
            chosen(captions, options.number)
            if options.ids is None
            else named(captions, read_ids(options.ids))
        )
        if len(selected) < 2:
            raise InputError(f"{len(selected)} captions; nothing was painted; name at least two")
        table = write_captions(selected, Path(options.out))
        code = bulk_command.main([options.run, str(table), "--out", str(options.out), *painting])
        if code == 0:
            print(
                json.dumps(_scored(options, selected, sorted({one.file_name for one in captions})), indent=1)
            )
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return code


def _scored(
    options: argparse.Namespace, selected: "Sequence[Caption]", names: Sequence[str]
) -> dict[str, object]:
    """Return the scores, and write them to coco.json next to the tables."""
    from corgi.evaluation.coco import painted_images, real_images, scores
    from corgi.evaluation.inception import load_inception

    inception = load_inception(options.inception, options.inception_sha256)
    painted = Run.open(f"{options.out}/{bulk_command.RESULT}")
    figures = scores(painted_images(painted), real_images(options.images, names), selected, inception)
    (Path(options.out) / "coco.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(),
        description="FID of COCO: one caption per image painted, against all images of the annotations. "
        "Other options, such as --guidance, --workers and --gpus, are those of generate_tables.py.",
    )
    option = parser.add_argument
    option("run", help="a run's folder or URL")
    option("--annotations", required=True, metavar="FILE", help="captions_val2014.json")
    option("--images", required=True, metavar="FOLDER", help="val2014, the images themselves")
    option("--inception", required=True, metavar="FILE", help="torch-fidelity's Inception weights")
    option("--inception-sha256", metavar="HEX", help="sha256 that this file must have")
    option(
        "--number",
        type=int,
        default=30_000,
        help="captions, one per image in the order of a hash; 30000 if not given",
    )
    option("--ids", metavar="FILE", help="caption ids instead, one per line")
    option("--out", required=True, metavar="ROOT", help="folder of the tables, the ids and coco.json")
    return parser
