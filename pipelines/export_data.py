"""Embeddings for clip-retrieval, or the kept uids for DataComp.

python pipelines/export_data.py runs/openmoji --clip-retrieval FOLDER [--tower NAME]
python pipelines/export_data.py runs/openmoji --uids FILE.npy
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import program, until_closed
from corgi.settings.errors import CorgiError


def main() -> int:
    """Write the requested files and print their numbers of rows; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=program(), description="Export a run's embeddings or its kept uids."
    )
    parser.add_argument("run", help="a run's folder, such as runs/openmoji")
    parser.add_argument(
        "--clip-retrieval", type=Path, metavar="FOLDER", help="new folder for .npy and .parquet"
    )
    parser.add_argument("--tower", help="the tower whose vectors are exported (default: all, concatenated)")
    parser.add_argument("--uids", type=Path, metavar="FILE", help="sorted kept train uids as DataComp's .npy")
    arguments = parser.parse_args()
    from corgi.clip.export_embeddings import clip_retrieval
    from corgi.curation.subset import npy_bytes, uid_set
    from corgi.tables.run import Run
    from corgi.tables.store import write_file

    if arguments.clip_retrieval is None and arguments.uids is None:
        parser.error("name --clip-retrieval or --uids")
    try:
        run = Run.open(arguments.run)
        if arguments.clip_retrieval is not None:
            rows = clip_retrieval(run, arguments.clip_retrieval.absolute(), arguments.tower)
            print(f"{rows} rows in {arguments.clip_retrieval}")
        if arguments.uids is not None:
            uids = uid_set(run)
            write_file(arguments.uids.absolute(), npy_bytes(uids))
            print(f"{len(uids)} uids in {arguments.uids}")
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(main))
