"""How long a list takes to plan and how much memory: `make bench-plan`. Each plan runs alone in a process of its own."""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.figures import Figures
from corgi.flow.dag import Selection, open_dag
from corgi.planning.stages import Plan
from corgi.settings.recipe import Recipe

MAX_SECONDS, MAX_BYTES, MAX_GROWTH = 30.0, 10**9, 1.1
_PART_ROWS = 100_000


def write_list(path: Path, num_rows: int) -> None:
    """Write a list of distinct URLs with captions, as Parquet or CSV by the path's ending."""
    columns = ["url", "caption"]
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, pa.schema([(name, pa.string()) for name in columns])) as writer:
            for start in range(0, num_rows, _PART_ROWS):
                rows = [_row(number) for number in range(start, min(num_rows, start + _PART_ROWS))]
                writer.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))))
        return
    with path.open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(columns)
        writer.writerows(_row(number) for number in range(num_rows))


def plan_alone(path: Path, root: Path) -> None:
    """Plan one list in this process; print its seconds and its peak of resident memory, bytes."""
    tower = {"name": "rn", "model": "RN50", "pretrained": "random"}
    recipe = Recipe.model_validate(
        {"name": "bench", "root": str(root), "plan": {"input": str(path)}, "embed": {"towers": [tower]}}
    )
    started = time.perf_counter()
    dag = open_dag([Plan()], recipe)
    dag.execute(Selection(), lambda line: None)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    rows = dag.run.stages()["plan"].rows
    cpu_seconds = used.ru_utime + used.ru_stime
    figures = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": used.ru_maxrss * 1024}
    print(json.dumps({**figures, "rows": rows.rows_in}))


def measured(path: Path, folder: Path) -> dict[str, float]:
    """Return what `plan_alone` printed in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.plan",
        "--alone",
        str(path),
        str(folder / f"runs-{path.name}"),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _row(number: int) -> tuple[str, str]:
    host = f"images-{number % 5000}.example-{number % 997}.com"
    return (
        f"https://{host}/2020/07/photo-of-something-{number}-800x600.jpg?w=800",
        f"a photo of something, number {number}, on a table in the sun",
    )


def main() -> None:
    """Plan a list in two formats, then one ten times as long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--alone", nargs=2, metavar=("LIST", "ROOT"))
    arguments = parser.parse_args()
    if arguments.alone:
        plan_alone(*map(Path, arguments.alone))
        return
    rows, found, figures = arguments.rows, {}, Figures("plan", "pyarrow")
    with tempfile.TemporaryDirectory(prefix="corgi-bench-") as name:
        folder = Path(name)
        for ending, factor in (("csv", 1), ("parquet", 1), ("parquet", 10)):
            path = folder / f"{rows * factor}.{ending}"
            write_list(path, rows * factor)
            found[ending, factor] = one = measured(path, folder)
            if one["rows"] != rows * factor:
                raise SystemExit(f"{one['rows']} rows planned of {rows * factor}")
            label = f"plan/{ending}/{rows * factor}"
            figures.add(f"{label}/time", one["seconds"], "s", f"<={MAX_SECONDS * factor}")
            figures.add(f"{label}/cpu_time", one["cpu_seconds"], "s")
            figures.add(f"{label}/peak_memory", one["peak_bytes"] / 1e6, "MB", f"<={MAX_BYTES / 1e6}")
    growth = found["parquet", 10]["peak_bytes"] / found["parquet", 1]["peak_bytes"]
    figures.add("plan/parquet/peak_memory_at_10x_rows", growth, "ratio", f"<={MAX_GROWTH}")
    figures.write()


if __name__ == "__main__":
    main()
