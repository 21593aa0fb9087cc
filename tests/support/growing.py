"""A list and the same list grown: pages of a local site, planned, fetched, embedded and curated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corgi.clip.stages import Embed
from corgi.curation.stages import Curate, Features
from corgi.download.stages import Download
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.planning.stages import Plan
from corgi.settings.recipe import Recipe
from tests.support.tiny_towers import tiny_tower

HOST = "pictures.test"
PER_SHARD = 30
TABLES = {
    "plan": ("plan",),
    "download": ("images", "captions", "ledger"),
    "embed": ("image_embeddings", "caption_embeddings", "caption_tokens"),
    "features": ("features",),
    "curate": ("selection",),
}
Row = tuple[str, str | None]


class Served(Protocol):
    """A site that listens on loopback."""

    @property
    def address(self) -> str:
        """Return its address and port."""
        ...


def path_of(number: int) -> str:
    """Return what the site is asked for: one in ten is missing, one in ten cut, some are of the same bytes."""
    return {0: f"/status/404?n={number}", 1: f"/truncated?n={number}"}.get(
        number % 10, f"/ok/{(number - number % 3) % 999}.png?n={number}"
    )


def row_of(number: int) -> Row:
    """Return a row of the list; one in seven has no caption, and some captions are shared."""
    return f"http://{HOST}{path_of(number)}", None if number % 7 == 6 else f"picture {number % 50}"


def write_list(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as a Parquet list."""
    columns = {
        name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(("url", "caption"))
    }
    pq.write_table(pa.table(columns), path)
    return path


def recipe(root: Path, listed: Path, server: Served, **sections: Any) -> Recipe:
    """Return the recipe of a run over a list; sections are laid over those of the tests."""
    tower = tiny_tower(listed.parent, "transformer").model_dump()
    download = {
        "image_size": 32,
        "encode_format": "png",
        "timeout_s": 30.0,
        "retries": 0,
        "resolve": [f"{HOST}:80={server.address}"],
        "allow_private": [server.address],
        "host_max_faults": 0,
        "host_connections": 64,
        **sections.get("download", {}),
    }
    embed = {
        "towers": [tower],
        "batch_size": 8,
        "tokens": [{"name": "words", "model": f"tower:{tower['name']}", "max_tokens": 8}],
        **sections.get("embed", {}),
    }
    plan = {"input": [str(listed)], "number_sample_per_shard": PER_SHARD, **sections.get("plan", {})}
    return Recipe.model_validate(
        {
            "name": sections.get("name", "grown"),
            "root": str(root),
            "tracking": {"mode": "disabled"},
            "plan": plan,
            "download": download,
            "embed": embed,
            "curate": {"perceptual_distance": 4},
        }
    )


def run(recipe: Recipe, last: str = "curate", force: bool = False) -> Dag:
    """Run the stages up to one and return their DAG."""
    dag = open_dag([Plan(), Download(), Embed(), Features(), Curate()], recipe)
    dag.execute(Selection(last=last, force=force), lambda line: None)
    return dag


def tables(dag: Dag, last: str = "curate") -> dict[str, pa.Table]:
    """Return every table of the stages up to one, all shards one after the other."""
    found = {}
    for stage, names in TABLES.items():
        shards = dag.run.shards(stage)
        for name in names:
            found[name] = pa.concat_tables([dag.store.read(shard, name) for shard in shards])
        if stage == last:
            break
    return found


def carried(dag: Dag, stage: str) -> int:
    """Return how many rows of a stage were taken over from an earlier list."""
    return sum(shard.facts.get("carried", 0) for shard in dag.run.shards(stage))


def is_of_floats(kind: pa.DataType) -> bool:
    """Return whether a column holds numbers that are rounded: vectors, norms, cosines, token states."""
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return pa.types.is_floating(kind)


def padded(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of numbers as [rows, most numbers of a row]; what a row lacks is -1."""
    rows = [np.ravel([-1.0 if value is None else value]) for value in column.to_pylist()]
    flat = [np.asarray(row, np.float64) for row in rows]
    width = max((len(row) for row in flat), default=0)
    found = np.full((len(flat), width), -1.0)
    for at, row in enumerate(flat):
        found[at, : len(row)] = row
    return found
