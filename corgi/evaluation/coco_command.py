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
    """Paint what is not painted yet and print the scores as JSON; return the exit code."""
    told, painting = _parser().parse_known_args(argv)
    try:
        from corgi.evaluation.coco import chosen, named, read_annotations, read_ids, write_captions

        captions = read_annotations(told.annotations)
        asked = chosen(captions, told.number) if told.ids is None else named(captions, read_ids(told.ids))
        if len(asked) < 2:
            raise InputError(f"{len(asked)} captions; nothing was painted; name at least two")
        table = write_captions(asked, Path(told.out))
        code = bulk_command.main([told.run, str(table), "--out", str(told.out), *painting])
        if code == 0:
            print(json.dumps(_scored(told, asked, sorted({one.file_name for one in captions})), indent=1))
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return code


def _scored(told: argparse.Namespace, asked: "Sequence[Caption]", names: Sequence[str]) -> dict[str, object]:
    """Return the scores, which are also written beside the tables."""
    from corgi.evaluation.coco import painted_images, real_images, scores
    from corgi.evaluation.inception import load_inception

    inception = load_inception(told.inception, told.inception_sha256)
    painted = Run.open(f"{told.out}/{bulk_command.RESULT}")
    found = scores(painted_images(painted), real_images(told.images, names), asked, inception)
    (Path(told.out) / "coco.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


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
    option("--inception-sha256", metavar="HEX", help="what that file must have")
    option(
        "--number",
        type=int,
        default=30_000,
        help="captions, one per image in the order of a hash; 30000 if not given",
    )
    option("--ids", metavar="FILE", help="caption ids instead, one per line")
    option("--out", required=True, metavar="ROOT", help="folder of the tables, the ids and coco.json")
    return parser
