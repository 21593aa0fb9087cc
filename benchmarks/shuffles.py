"""Exact duplicates of made rows by Ray Data's group-by and by curate's exchange between tasks: `make bench-shuffles`.

Each runs alone in a process that starts its own Ray. The reason for the choice is docs/decisions/0014-curate-tasks.md.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.curate import Peak
from benchmarks.figures import Figures
from corgi.curation.exchange import Columns, cut, exchanged, joined
from corgi.flow import cluster
from corgi.flow.tasks import Tasks, values_of
from corgi.settings.recipe import Recipe

_BLOCK_ROWS = 250_000
WAYS = ("ray_data", "tasks")


def made(block: int) -> Columns:
    """Return digest and rank of a block's rows, a tenth of them copies."""
    generator = np.random.default_rng(block)
    digest = generator.integers(0, 2**63, _BLOCK_ROWS)
    digest[: _BLOCK_ROWS // 10] = generator.integers(0, 1000, _BLOCK_ROWS // 10)
    return digest, np.arange(block * _BLOCK_ROWS, (block + 1) * _BLOCK_ROWS)


def by_tasks(num_blocks: int) -> int:
    """Return the rows that have an earlier copy."""
    calls = Tasks()
    blocks = [calls.start(made, block) for block in range(num_blocks)]
    parts = exchanged(calls, [(block,) for block in blocks], pieces, num_blocks, "exchange")
    return sum(values_of([calls.start(num_copies, *found) for found in parts], "copies"))


def pieces(block: Columns, num_parts: int) -> list[Columns]:
    """Return a block's rows by part of their digest."""
    return cut(block[0] % num_parts, num_parts, *block)


def num_copies(*found: Columns) -> int:
    """Return the rows of a part that have an earlier copy."""
    digest, _ = joined(found)
    return len(digest) - len(np.unique(digest))


def made_columns(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a block's rows by column; `batch` holds its number."""
    digest, rank = made(int(batch["id"][0]))
    return {"digest": digest, "rank": rank}


def by_ray_data(num_blocks: int) -> int:
    """Return the rows that have an earlier copy."""
    import ray
    from ray.data import DataContext
    from ray.data.aggregate import Count

    DataContext.get_current().enable_progress_bars = False
    numbers: Any = ray.data.range(num_blocks, override_num_blocks=num_blocks)
    blocks = numbers.map_batches(made_columns, batch_size=1)
    grouped = blocks.groupby("digest", num_partitions=num_blocks).aggregate(Count())
    return num_blocks * _BLOCK_ROWS - grouped.count()


def alone(way: str, num_rows: int) -> None:
    """Count copies one way in this process; print the seconds and the copies."""
    recipe = Recipe.model_validate({"name": "bench", "embed": {"input": "x"}})
    cluster.connect(recipe)
    started = time.perf_counter()
    count = by_tasks if way == "tasks" else by_ray_data
    copies = count(num_rows // _BLOCK_ROWS)
    print(json.dumps({"seconds": time.perf_counter() - started, "copies": copies}), flush=True)
    cluster.shutdown()


def main() -> None:
    """Count copies both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--alone", nargs=2, metavar=("WAY", "ROWS"))
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.alone[0], int(arguments.alone[1]))
        return
    figures = Figures("shuffles", "ray", "pyarrow", "numpy")
    for rows in arguments.rows:
        copies = set()
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.shuffles", "--alone", way, str(rows)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                peak = Peak(process)
                out, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"{way} of {rows} rows failed")
            found = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
            copies.add(found["copies"])
            figures.add(f"shuffles/{way}/{rows}/time", found["seconds"], "s")
            figures.add(f"shuffles/{way}/{rows}/peak_memory", peak.num_bytes / 1e9, "GB")
        if len(copies) != 1:
            raise SystemExit(f"the ways disagree: {copies}")
    figures.write()


if __name__ == "__main__":
    main()
