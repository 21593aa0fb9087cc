"""What a whole run of the smoke recipe made, as digests: two runs are equal if these are.

`python -m tests.support.run_digests RUN SCRATCH` prints them as JSON, for a run in an object store.
"""

import hashlib
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.tables.run import Run
from corgi.tables.store import Store
from tests.support.table_digest import table_digest

TABLES = {
    "plan": ["plan"],
    "download": ["images", "captions", "ledger"],
    "embed": ["image_embeddings", "caption_embeddings"],
    "curate": ["selection"],
    "autoencoder": ["latents"],
}
MODELS = {
    "tower": ["checkpoint"],
    "shift": ["shift"],
    "prior": ["prior_shifted", "prior_dalle2"],
    "decoder": ["decoder"],
}


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of every table (rows sorted) and of every model's bytes of the run in a folder."""
    return digests_of(Run.open(folder))


def digests_of(run: Run) -> dict[str, str]:
    """Return the digests of a run, wherever it is stored."""
    found: dict[str, str] = {}
    for stage, tables in TABLES.items():
        for table in tables:
            found[f"{stage}/{table}"] = table_digest(pa.concat_tables(_tables(run, stage, table)))
    for stage, names in MODELS.items():
        for name in names:
            [path] = _files(run, stage, name)
            found[f"{stage}/{name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _tables(run: Run, stage: str, table: str) -> list[pa.Table]:
    return [pq.read_table(path) for path in _files(run, stage, table)]


def _files(run: Run, stage: str, table: str) -> list[Path]:
    """Return the verified files of a stage's table."""
    return [
        run.store.verified(shard, entry)
        for shard in run.shards(stage)
        for entry in shard.files
        if entry.table == table
    ]


if __name__ == "__main__":
    location, scratch = sys.argv[1:]
    root = location.rpartition("/")[0]
    print(json.dumps(digests_of(Run(location, Store(root, Path(scratch) / "cache"), Path(scratch)))))
