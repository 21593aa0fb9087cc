"""The command line of a bulk generation: paints a file of captions into tables of pictures, through Ray; it can be killed and resumed."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from corgi.flow import cluster, screen
from corgi.flow.locks import held
from corgi.flow.output import program
from corgi.flow.shards import Pool
from corgi.inference.bulk import INDEX, Bulk, paint_tables
from corgi.inference.prompt_files import COLUMN
from corgi.inference.request import add_settings, settings_of
from corgi.settings.errors import SettingsError
from corgi.tables.run import Run
from corgi.tables.store import Store

RESULT = "result"
"""Folder below the root that points to the tables, as a run's folder does."""
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Paint the file's captions and print how many rows were painted; return the exit code."""
    try:
        bulk, root = _asked(argv)
        out = Run(f"{root}/{RESULT}", Store(root))
        log = out.folder / "logs" / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{os.getpid()}.log"
        with held(out.folder), screen.opened(log) as shown:
            try:
                made = paint_tables(bulk, out)
            finally:
                cluster.shutdown()
            for reason, number in made.rows.rejected.items():
                shown.line(f"{number} rows were not painted: {reason.text}; the ledger names them")
            shown.line(f"{made.rows.kept} of {made.rows.rows_in} rows painted: {out.published(INDEX)}")
    except KeyboardInterrupt:
        print("stopped; committed pictures are kept; run the same command to continue", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        known = cluster.cause(error)
        if known is None:
            raise
        print(f"{type(known).__name__}: {known}", file=sys.stderr)
        return known.exit_code
    return 0


def _asked(argv: Sequence[str] | None) -> tuple[Bulk, str]:
    """Return the parameters of the generation and the root of the tables.

    Raises:
        SettingsError: a value is out of bounds.

    """
    options = _parser().parse_args(argv)
    for name in ("rows_per_shard", "workers"):
        if getattr(options, name) < 1:
            raise SettingsError(
                f"--{name.replace('_', '-')}={getattr(options, name)} must be at least 1; nothing was painted; choose another value"
            )
    asked, finish = settings_of(options)
    pool = Pool(options.workers, options.cpus, options.gpus)
    bulk = Bulk(
        options.run,
        options.prompts,
        options.column,
        options.n,
        options.seed,
        asked,
        finish,
        options.rows_per_shard,
        pool,
    )
    root = options.out if "://" in options.out else str(Path(options.out).absolute())
    return bulk, root


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(), description="Paint a file of captions into Parquet tables, through Ray."
    )
    parser.add_argument("run", help="a run's folder or URL, such as runs/openmoji")
    parser.add_argument("prompts", help="a .txt, .csv, .tsv or .parquet file of captions")
    parser.add_argument("--column", default=COLUMN, help=f"column of the captions; {COLUMN} if not given")
    parser.add_argument(
        "--out", required=True, help="root of the tables: a folder or an s3://, gs:// or az:// URL"
    )
    parser.add_argument("--n", type=int, default=1, help="pictures per caption")
    parser.add_argument("--seed", type=int, default=0, help="picture i of row r has the seed SEED + r n + i")
    parser.add_argument(
        "--rows-per-shard", type=int, default=512, help="captions that are committed together"
    )
    parser.add_argument("--workers", type=int, default=1, help="actors, each with the run loaded once")
    parser.add_argument("--cpus", type=float, default=1.0, help="CPUs that Ray reserves for a worker")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs that Ray reserves for a worker")
    add_settings(parser)
    return parser
