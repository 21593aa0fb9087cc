"""How long curate takes over millions of rows, and how much memory all its processes together: `make bench-curate`.

Rows are made, not fetched: images without pixels, embeddings of four numbers. A tenth are exact copies, a twentieth near copies, one
domain holds a tenth. The features stage and curate run as in a pipeline, in a process that starts its own Ray.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.figures import Figures
from corgi.curation.stages import Curate, Features
from corgi.flow import cluster
from corgi.flow.context import Context
from corgi.flow.dag import Selection, open_dag
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import IMAGES, Split, image_embeddings
from corgi.tables.store import ShardTask

SHARD_ROWS = 10_000
MAX_MINUTES_PER_10M, MAX_GB, MAX_GROWTH = 15.0, 8.0, 1.1
_CURATE = {"perceptual_distance": 4, "max_domain_share": 0.05}
_POPULAR, _DOMAINS, _DIM = 50_000, 40_000, 4
_SAMPLE_S = 0.5


class _Made(Stage):
    """A stage whose shards hold made rows; `number_sample_per_shard` of the recipe's plan tells how many shards."""

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the tables of every shard."""
        num_shards = context.recipe.plan.number_sample_per_shard
        tasks = [context.task(f"{number:06d}") for number in range(num_shards)]
        for number, task in enumerate(tasks):
            tables = self.tables(number, num_shards)
            with context.store.attempt(task) as attempt:
                for name, table in tables.items():
                    attempt.write_table(name, table)
                attempt.commit(RowCounts(rows_in=SHARD_ROWS, kept=SHARD_ROWS))
        return tasks

    def tables(self, number: int, num_shards: int) -> dict[str, pa.Table]:
        """Return the tables of a shard."""
        raise NotImplementedError


class MadeDownload(_Made):
    """Images without pixels."""

    name, settings = "download", ("plan",)

    def tables(self, number: int, num_shards: int) -> dict[str, pa.Table]:
        """Return `images`: a tenth exact copies of popular ones, a twentieth a few bits away, the rest alone."""
        generator = np.random.default_rng(number)
        kind = generator.random(SHARD_ROWS)
        popular = generator.integers(0, _POPULAR, SHARD_ROWS)
        content = np.where(kind < 0.1, popular, 10**9 + number * SHARD_ROWS + np.arange(SHARD_ROWS))
        hashes = generator.integers(0, 2**64, SHARD_ROWS, np.uint64)
        known = np.random.default_rng(0).integers(0, 2**64, _POPULAR, np.uint64)[popular]
        for _ in range(2):
            known ^= np.where(
                kind < 0.1, np.uint64(0), np.uint64(1) << generator.integers(0, 64, SHARD_ROWS, np.uint64)
            )
        hashes = np.where(kind < 0.15, known, hashes)
        domain = np.where(generator.random(SHARD_ROWS) < 0.1, 0, generator.integers(1, _DOMAINS, SHARD_ROWS))
        columns = {
            "uid": uids(number, num_shards),
            "url": [f"http://img.site{n}.org/{row}.jpg" for row, n in enumerate(domain.tolist())],
            "sha256": [hashlib.sha256(b"%d" % n).hexdigest() for n in content.tolist()],
            "phash": [f"{n:016x}" for n in hashes.tolist()],
            "split": generator.choice([str(split) for split in Split], SHARD_ROWS, p=[0.9, 0.05, 0.05]),
        }
        nulls = {f.name: pa.nulls(SHARD_ROWS, f.type) for f in IMAGES if f.name not in columns}
        return {"images": pa.table({f.name: {**columns, **nulls}[f.name] for f in IMAGES}, schema=IMAGES)}


class MadeEmbed(_Made):
    """Embeddings of a few numbers."""

    name, inputs, settings = "embed", ("download",), ("embed",)

    def tables(self, number: int, num_shards: int) -> dict[str, pa.Table]:
        """Return `image_embeddings` and `caption_embeddings`, the latter without vectors."""
        generator = np.random.default_rng(number)
        uid = uids(number, num_shards)
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(generator.normal(size=SHARD_ROWS * _DIM).astype(np.float16)), _DIM
        )
        images = {
            "uid": uid,
            "split": ["train"] * SHARD_ROWS,
            "t/image": vectors,
            "t/image_norm": np.ones(SHARD_ROWS, np.float32),
            "similarity": generator.random(SHARD_ROWS).astype(np.float32),
        }
        captions = pa.table({"uid": uid, "kind": ["full"] * SHARD_ROWS})
        return {
            "image_embeddings": pa.table(images, schema=image_embeddings({"t": _DIM})),
            "caption_embeddings": captions,
        }


def uids(number: int, num_shards: int) -> list[str]:
    """Return the uids of a shard: spread evenly over its range, in order."""
    first, last = (number << 64) // num_shards, ((number + 1) << 64) // num_shards
    step = (last - first) // SHARD_ROWS
    return [f"{first + row * step:016x}{row:016x}" for row in range(SHARD_ROWS)]


def recipe(root: Path, num_rows: int) -> Recipe:
    """Return the recipe of so many rows."""
    tower = {"name": "t", "model": "RN50", "pretrained": "random"}
    plan = {"number_sample_per_shard": num_rows // SHARD_ROWS}
    return Recipe.model_validate(
        {"name": "bench", "root": str(root), "plan": plan, "curate": _CURATE, "embed": {"towers": [tower]}}
    )


def stage_alone(root: Path, num_rows: int, last: str) -> None:
    """Run the stages up to one in this process; print the seconds and, by reason, the rows of the last."""
    dag = open_dag([MadeDownload(), MadeEmbed(), Features(), Curate()], recipe(root, num_rows))
    started = time.perf_counter()
    try:
        dag.execute(Selection(last=last), lambda line: print(line, file=sys.stderr, flush=True))
    finally:
        cluster.shutdown()
    rows = dag.run.stages()[last].rows
    found = {"seconds": time.perf_counter() - started, "rows": rows.rows_in, "kept": rows.kept}
    print(json.dumps(found | {str(reason): count for reason, count in rows.rejected.items()}))


class Peak:
    """The largest memory of a process and all its descendants together, shared pages counted once."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Sample until the process ends."""
        self.num_bytes = 0
        self._process = process
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while self._process.poll() is None:
            self.num_bytes = max(self.num_bytes, self._now())
            time.sleep(_SAMPLE_S)

    def _now(self) -> int:
        total = 0
        try:
            top = psutil.Process(self._process.pid)
            for process in (top, *top.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
        except psutil.NoSuchProcess:
            return 0
        return total


def measured(root: Path, num_rows: int, last: str) -> dict[str, float]:
    """Return what `stage_alone` printed in a process of its own, and the peak of memory."""
    command = [sys.executable, "-m", "benchmarks.curate", "--alone", str(root), str(num_rows), last]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = Peak(process)
        out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{last} of {num_rows} rows failed")
    return {**json.loads(out.splitlines()[-1]), "peak_bytes": float(peak.num_bytes)}


def main() -> None:
    """Curate sets of several sizes, each made anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000, 20_000_000])
    parser.add_argument("--alone", nargs=3, metavar=("ROOT", "ROWS", "LAST"))
    arguments = parser.parse_args()
    if arguments.alone:
        root, rows, last = arguments.alone
        stage_alone(Path(root), int(rows), last)
        return
    figures, peaks = Figures("curate", "ray", "pyarrow", "numpy"), {}
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="corgi-bench-") as name:
            root = Path(name)
            measured(root, rows, "embed")
            for last in ("features", "curate"):
                one = measured(root, rows, last)
                label = f"curate/{last}/{rows}"
                goal = f"<={MAX_MINUTES_PER_10M * rows / 10**7:g}" if last == "curate" else ""
                figures.add(f"{label}/time", one["seconds"] / 60, "min", goal)
                figures.add(f"{label}/peak_memory", one["peak_bytes"] / 1e9, "GB", f"<={MAX_GB}")
            peaks[rows] = one["peak_bytes"]
            figures.add(f"curate/kept/{rows}", one["kept"] / rows, "share")
    for rows in peaks:
        if 2 * rows in peaks:
            growth = peaks[2 * rows] / peaks[rows]
            figures.add(f"curate/peak_memory_at_2x_{rows}", growth, "ratio", f"<={MAX_GROWTH}")
    figures.write()


if __name__ == "__main__":
    main()
