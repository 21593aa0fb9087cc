"""A list of 100,000 URLs grown to 120,000: requests, rows embedded, accounts, and the tables beside those of one plan.

python -m benchmarks.grown_list --work DIR     (goes on where it was stopped; the count of requests is kept in DIR)

The site is this machine's loopback, the tower a tiny untrained one. It measures counts, not seconds.
"""

import argparse
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
from ray import init, shutdown

from benchmarks.figures import Figures
from corgi.flow.dag import Dag
from tests.support import growing
from tests.support.fault_server import FaultServer

PER_SHARD = 10_000
LAST = "features"


def serve(pipe: Connection, log: str) -> None:
    """Serve the site until the pipe closes; the number of requests so far is appended to a log."""
    with FaultServer() as server:
        pipe.send(server.address)
        seen = 0
        while not pipe.poll(0.5):
            number = len(server.requests)
            if number > seen:
                with Path(log).open("a") as sink:
                    sink.write(f"{number - seen}\n")
                seen = number


class Site:
    """The site in a process of its own; `address` and what was asked for over all runs of this benchmark."""

    def __init__(self, log: Path) -> None:
        """Start the process."""
        self.log = log
        self._pipe, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(other, str(log)), daemon=True
        )
        self._process.start()
        self.address: str = self._pipe.recv()

    def requests(self) -> int:
        """Return how many requests there were, after the last was written down."""
        time.sleep(2)
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0

    def close(self) -> None:
        """End the process."""
        self._pipe.send("end")
        self._process.join()


def made(work: Path, name: str, listed: Path, site: Site) -> Dag:
    """Run a list's stages under a root, or go on with them."""
    plan = {"number_sample_per_shard": PER_SHARD}
    recipe = growing.recipe(work / name, listed, site, plan=plan, embed={"batch_size": 256})
    started = time.monotonic()
    dag = growing.run(recipe, LAST)
    print(f"{name} {listed.name}: {time.monotonic() - started:.0f} s", flush=True)
    return dag


def differing_rows(grown: Dag, fresh: Dag) -> dict[str, int]:
    """Return, by table, how many rows differ; vectors may differ by rounding, 2e-3 of a unit."""
    found: dict[str, int] = {}
    for stage, names in growing.TABLES.items():
        pairs = list(zip(grown.run.shards(stage), fresh.run.shards(stage), strict=True))
        for name in names:
            tables = ((grown.store.read(one, name), fresh.store.read(other, name)) for one, other in pairs)
            found[name] = sum(_differing(*pair) for pair in tables)
        if stage == LAST:
            return found
    return found


def _differing(one: pa.Table, other: pa.Table) -> int:
    if one.num_rows != other.num_rows:
        return max(one.num_rows, other.num_rows)
    differs = np.zeros(one.num_rows, bool)
    for name in one.column_names:
        if growing.is_of_floats(one[name].type):
            a, b = (growing.padded(table[name]) for table in (one, other))
            differs |= (np.abs(a - b) > 2e-3 * np.maximum(1, np.abs(b))).any(axis=1)
        elif not one[name].equals(other[name]):
            rows = zip(one[name].to_pylist(), other[name].to_pylist(), strict=True)
            differs |= np.array([a != b for a, b in rows], bool)
    return int(differs.sum())


def main() -> int:
    """Print and keep every figure."""
    parser = argparse.ArgumentParser(description="Grow a list, and compare it with one plan.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--more", type=int, default=20_000)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the lists, the roots and the counts"
    )
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    figures = Figures("grown_list", "pyarrow", "torch")
    rows = [growing.row_of(number) for number in range(asked.rows + asked.more)]
    short = growing.write_list(asked.work / "short.parquet", rows[: asked.rows])
    long = growing.write_list(asked.work / "long.parquet", rows)
    init(num_cpus=4, include_dashboard=False, object_store_memory=300 * 2**20)
    counts, dags = [], []
    for name, listed in (("grown", short), ("grown", long), ("fresh", long)):
        site = Site(asked.work / f"{name}-{listed.stem}.requests")
        dags.append(made(asked.work, name, listed, site))
        counts.append(site.requests())
        site.close()
    shutdown()
    _, grown, fresh = dags
    embedded = grown.run.stages()["embed"].rows
    figures.add("grown_list_requests_of_the_short_list", counts[0], "requests")
    figures.add("grown_list_requests_of_new_rows", counts[1] / asked.more, "per new row", "<=1")
    figures.add("grown_list_requests_of_one_plan", counts[2], "requests")
    figures.add("grown_list_rows_carried_by_download", growing.carried(grown, "download"), "rows")
    new = embedded.rows_in - growing.carried(grown, "embed")
    figures.add("grown_list_rows_embedded", new, "rows", f"<={asked.more}")
    for name, number in differing_rows(grown, fresh).items():
        figures.add(f"grown_list_rows_that_differ_{name}", number, "rows", "<=0")
    for stage in ("plan", "download", "embed", "features"):
        same = grown.run.stages()[stage].rows == fresh.run.stages()[stage].rows
        figures.add(f"grown_list_accounts_differ_{stage}", float(not same), "", "<=0")
    figures.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
