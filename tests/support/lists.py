"""URL lists for tests: the same rows in every format, and a recipe whose plan stage runs alone."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.flow.dag import Dag, open_dag
from corgi.planning.stages import Plan
from corgi.settings.recipe import Recipe

COLUMNS = ("url", "caption", "kind", "concept")
FORMATS = ("parquet", "csv", "tsv", "jsonl")
Row = tuple[str | None, str | None, str | None, str | None]


def write_list(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows of COLUMNS in the format of the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        columns = {name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(COLUMNS)}
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows))
    elif path.suffix == ".tsv":  # no quoting: a cell holds neither tabs nor line ends
        lines = ["\t".join(cell or "" for cell in row) for row in (COLUMNS, *rows)]
        path.write_text("".join(f"{line}\n" for line in lines), newline="")
    else:
        with path.open("w", newline="") as sink:
            csv.writer(sink).writerows([COLUMNS, *([cell or "" for cell in row] for row in rows)])
    return path


def only_caption(row: dict[str, Any]) -> str | None:
    """Return the caption of a row that has at most one."""
    captions = row["captions"] or [None]
    assert len(captions) == 1
    return captions[0]


def recipe(root: Path, *lists: Path | str, **plan: Any) -> Recipe:
    """Return a recipe that plans lists, with kinds and groups."""
    columns = {"caption_kind_col": "kind", "group_col": "concept", **plan}
    tower = {"name": "rn", "model": "RN50", "pretrained": "random"}
    values = {"input": [str(path) for path in lists], "number_sample_per_shard": 8, **columns}
    return Recipe.model_validate(
        {"name": "lists", "root": str(root), "plan": values, "embed": {"towers": [tower]}}
    )


def plan_dag(recipe: Recipe) -> Dag:
    """Return the plan stage alone."""
    return open_dag([Plan()], recipe)
