"""What a worker reads before its first batch and after: `python -m benchmarks.feed [--shards N] [--folder F]`.

The store is simulated (benchmarks/simulated_set.py): the indexes of 40,000 shards are real, rows are those of one shard. Vectors are as
wide as those of corgi.yaml, one caption per picture; of word encodings and latents only the indexes are read.
"""

import argparse
import functools
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.figures import Figures, alternated, ratios
from benchmarks.simulated_set import (
    SPLITS,
    CountingDisk,
    SimulatedSet,
    commit_beside,
    commit_simulated,
    opened,
)
from corgi.diffusion.choice import ClusterChoice
from corgi.diffusion.shifted import ShiftTable
from corgi.feeding.feed import Feed, Rows, dense, rows_between
from corgi.feeding.order import Order, lanes_for
from corgi.feeding.packed_rows import CaptionedRows, LatentRows
from corgi.feeding.word_states import WordStates
from corgi.settings.recipe import load
from corgi.settings.training import TrainingSettings
from corgi.tables.row_groups import RowGroups
from corgi.tables.schema import Split
from corgi.training.autoencoder import AUTOENCODER_FACT
from corgi.training.prior_loss import MAX_VAL_ROWS, PriorLoss, PriorParts

HOME = Path(__file__).resolve().parents[1]
DIM = 1536
ROUNDS = 3
RATE_LANES, RATE_BATCH, RATE_ROUNDS = 64, 1024, 5
STEPS = {1: 150, 8: 600, 64: 3000}
"""Steps by number of workers: each worker reads some tens of row groups."""


class SimulatedPrior(PriorLoss):
    """The demo's prior on a simulated table."""

    def __init__(self, packed: SimulatedSet) -> None:
        """Take one cluster; its values decide nothing that is timed."""
        self.packed = packed
        table = ShiftTable.clusters(torch.zeros(1, DIM), torch.ones(1, DIM))
        settings = load(str(HOME / "pipelines/recipes/openmoji.yaml"), []).prior
        super().__init__(PriorParts(settings, table, ClusterChoice(settings.cluster_choice)))

    def split(self, split: Split) -> CaptionedRows:
        """Return the rows of a split."""
        return CaptionedRows(self.packed, split)


class Place(NamedTuple):
    """Where the simulated table is."""

    root: Path
    stage: str
    template: RowGroups


def main(arguments: list[str]) -> int:
    """Measure; print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=40_000)
    parser.add_argument(
        "--start-only", action="store_true", help="measure no rates of reading on; nothing is recorded"
    )
    parser.add_argument("--folder", type=Path, default=None, help="where the simulated store is put")
    options = parser.parse_args(arguments)
    figures = Figures("feed", "pyarrow", "numpy")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder)
        place = Place(root, *commit_simulated(root, options.shards, DIM, SPLITS))
        packed, disk = start(place, options.shards, figures)
        training = load(str(HOME / "pipelines/recipes/corgi.yaml"), []).prior.training
        for world in (8, 64):
            first_batch(packed, disk, training, world, figures)
        evaluation(packed, disk, figures)
        if options.start_only:
            return 0
        rates(packed, disk, figures)
    figures.write()
    return 0


def start(place: Place, shards: int, figures: Figures) -> tuple[SimulatedSet, CountingDisk]:
    """Open the table as every worker does at every start: that of a prior, of one that reads words, and of a decoder."""
    beside = commit_beside(place.root, shards, place.template)
    seconds: dict[str, list[float]] = {kind: [] for kind in ("prior", "prior_with_words", "decoder")}
    read: dict[str, int] = {}
    for _ in range(ROUNDS):
        for kind, taken in seconds.items():
            begun = time.perf_counter()
            packed, disk = opened(*place)
            rows = rows_of(packed, kind, beside)
            check(sum(rows.counts) == SPLITS["train"] * shards)
            taken.append(time.perf_counter() - begun)
            read[kind] = disk.num_bytes
    for kind, taken in seconds.items():
        figures.add_rounds(f"feed_start_{kind}_{shards}_shards_seconds", taken, "s", "<=5")
        figures.add(f"feed_start_{kind}_{shards}_shards_read", read[kind] / 1e6, "MB", "<=50")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures.add(f"feed_start_{shards}_shards_peak_memory", peak, "MiB")
    return opened(*place)


def rows_of(packed: SimulatedSet, kind: str, beside: dict[str, str]) -> Rows:
    """Return the train rows of one kind of training, opened as its objective opens them."""
    store = packed.store
    if kind == "decoder":
        _, *latents = store.listed(store.read_stage(beside["autoencoder"]))
        check(len({made.facts[AUTOENCODER_FACT] for made in latents}) == 1)
        return LatentRows(packed, latents, Split.TRAIN)
    if kind == "prior":
        return CaptionedRows(packed, Split.TRAIN)
    embedded = store.each_listed(store.read_stage(beside["embed"]))
    return CaptionedRows(packed, Split.TRAIN, WordStates(store, packed.names, embedded, "t5"))


def first_batch(
    packed: SimulatedSet, disk: CountingDisk, training: TrainingSettings, world: int, figures: Figures
) -> None:
    """Make rank 0's first batch of corgi.yaml, cold."""
    rows = CaptionedRows(packed, Split.TRAIN)
    num_lanes = lanes_for(training.global_batch, training.lanes)
    order = Order(rows.counts, 0, num_lanes, training.shuffle_window)
    before, begun = disk.num_bytes, time.perf_counter()
    feed = Feed(rows, order, training.global_batch, (0, world))
    feed.batch(0)
    seconds = time.perf_counter() - begun
    feed.close()  # the units asked for ahead are read too
    lanes = num_lanes // world
    group = packed.template.starts[1]
    figures.add(f"feed_first_batch_{world}_workers_seconds", seconds, "s")
    figures.add(f"feed_first_batch_{world}_workers_read", (disk.num_bytes - before) / 2**20, "MiB", "<=1024")
    windows = (disk.num_bytes - before) / group / lanes
    figures.add(f"feed_first_batch_{world}_workers_row_groups_per_lane", windows, "")


def evaluation(packed: SimulatedSet, disk: CountingDisk, figures: Figures) -> None:
    """Read the rows that the prior's evaluation measures; then evaluate the demo's prior on them, untrained."""
    before, begun = disk.num_bytes, time.perf_counter()
    rows = CaptionedRows(packed, Split.VAL)
    found = rows_between(rows, range(MAX_VAL_ROWS))
    check(dense(found["full"]).shape == (MAX_VAL_ROWS, 1, DIM))
    figures.add("feed_val_rows_seconds", time.perf_counter() - begun, "s", "<=60")
    figures.add("feed_val_rows_read", (disk.num_bytes - before) / 2**20, "MiB")
    prior = SimulatedPrior(packed)
    model = prior.model()
    begun = time.perf_counter()
    check(bool(prior.evaluate(model)))
    figures.add("feed_evaluation_of_the_demo_prior_seconds", time.perf_counter() - begun, "s", "<=60")


def rates(packed: SimulatedSet, disk: CountingDisk, figures: Figures) -> None:
    """Read on as one worker of several: CPU and bytes per row must not depend on how many there are."""
    rows = CaptionedRows(packed, Split.TRAIN)
    read: dict[int, float] = {}

    def cpu_per_row(world: int) -> float:
        order = Order(rows.counts, 0, RATE_LANES, 16)
        feed = Feed(rows, order, RATE_BATCH, (0, world))
        before, begun = disk.num_bytes, time.process_time()
        count = sum(len(batch.positions) for batch in feed.batches(0, STEPS[world]))
        seconds = time.process_time() - begun
        feed.close()
        read[world] = (disk.num_bytes - before) / count
        return seconds / count

    timed = (functools.partial(cpu_per_row, world) for world in STEPS)
    cpu = dict(zip(STEPS, alternated(RATE_ROUNDS, *timed), strict=True))
    for world, rounds in cpu.items():
        rates_of = [1 / seconds for seconds in rounds]
        figures.add_rounds(f"feed_{world}_workers_rows_per_cpu_second", rates_of, "rows/CPU-s")
        figures.add(f"feed_{world}_workers_bytes_per_row", read[world], "B")
    over = ratios(cpu[64], cpu[1])
    figures.add_rounds("feed_cpu_per_row_64_over_1_workers", over, "x", "<=1.1")
    figures.add("feed_bytes_per_row_64_over_1_workers", read[64] / read[1], "x", "<=1.1")


def check(is_right: bool) -> None:
    """End the benchmark if what was read is not what was asked for."""
    if not is_right:
        raise SystemExit("the rows read are not those of the simulated table")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
