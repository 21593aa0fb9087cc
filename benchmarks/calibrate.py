"""Rates of `--plan` measured on this machine: `make calibrate [ROOT=s3://bucket/corgi]`.

    python -m benchmarks.calibrate [--root ROOT] [--out runs/rates.yaml]
    python pipelines/full.py RECIPE cluster.file=cluster/aws.yaml cluster.rates=runs/rates.yaml --plan

Run it on a machine like the workers. Each rate is the interval of its rounds, widened by WIDTH either way, as a run meets other
pictures and other hours. Not measured: what the web, a GPU or a price list decides; those stay as corgi/budget/rates.yaml has them.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from benchmarks import download
from benchmarks.web import make_site, serving
from corgi.budget.rates import load
from corgi.statistics.clusters import nearest
from corgi.statistics.moments import cluster_moments
from corgi.storage.roots import open_storage
from corgi.storage.storage import Storage

WIDTH = 1.25
ROUNDS = 3
NUM_URLS, NUM_BODIES, NUM_WARM = 1500, 300, 32
NUM_EMBEDDED = 300
TOWER_PX = 224
NUM_ROWS, DIM, NUM_CLUSTERS = 10_000, 768, 64
PASSES = (3, 10)
"""Passes of the shift stage over the vectors: few clusters that settle at once, and many."""
WRITE_BYTES = 128 * 2**20


def fetch_cpu_per_url(folder: Path) -> Iterator[float]:
    """Yield the CPU-seconds of fetching, decoding, encoding and committing one web picture, plain and by TLS; needs nginx."""
    names = make_site(folder / "site", "web", NUM_BODIES)
    with serving(folder):
        for scheme, port in (("http", download.PLAIN_PORT), ("https", download.TLS_PORT)):
            urls = [f"{scheme}://127.0.0.1:{port}/{names[n % len(names)]}?{n}" for n in range(NUM_URLS)]
            start = download.run(folder, "corgi", urls[:NUM_WARM])
            for _ in range(ROUNDS):
                yield download.measured(download.run(folder, "corgi", urls), start).cpu_ms / 1e3


def embed_cpu_per_tower(folder: Path) -> Iterator[float]:
    """Yield the CPU-seconds of decoding a stored picture of 256 px and preparing it for one tower."""
    from open_clip.transform import image_transform

    from corgi.clip.pictures import pixel_batches

    noise = np.random.default_rng(0).integers(0, 255, (NUM_EMBEDDED, 16, 16, 3), np.uint8)
    pictures = [cv2.resize(picture, (341, 256), interpolation=cv2.INTER_CUBIC) for picture in noise]
    encoded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    transform: Any = image_transform(TOWER_PX, is_train=False)  # one of several types by its arguments
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in pixel_batches(encoded, [transform], 64, os.cpu_count() or 1):
            pass
        yield (time.process_time() - begun) / NUM_EMBEDDED


def statistics_cpu_per_row(folder: Path) -> Iterator[float]:
    """Yield the CPU-seconds that the shift stage spends on one vector, for few passes and for many."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((NUM_ROWS, DIM)).astype(np.float32)
    centroids = rng.standard_normal((NUM_CLUSTERS, DIM)).astype(np.float32)
    for _ in range(ROUNDS):
        begun = time.process_time()
        cluster_moments(rows, nearest(rows, centroids)[0], NUM_CLUSTERS)
        one_pass_s = (time.process_time() - begun) / NUM_ROWS
        yield from (passes * one_pass_s for passes in PASSES)


def storage_bandwidth(storage: Storage) -> Iterator[float]:
    """Yield the bit/s of one writer to the root, each file durable before it counts."""
    data = np.random.default_rng(0).bytes(WRITE_BYTES)
    storage.make("calibration")
    for number in range(ROUNDS):
        name = f"calibration/{os.getpid()}-{number}"
        begun = time.monotonic()
        with storage.create(name) as file:
            file.write(data)
        yield 8 * WRITE_BYTES / (time.monotonic() - begun)
        storage.remove(name)


def widened(values: Sequence[float]) -> list[float]:
    """Return the interval of some rounds, WIDTH times wider at either end, to three digits."""
    return [float(f"{bound:.3g}") for bound in (min(values) / WIDTH, max(values) * WIDTH)]


def entry(name: str, values: Sequence[float]) -> dict[str, object]:
    """Return a rate in the form of rates.yaml."""
    unit = load().table[name]["unit"]
    source = f"measured by make calibrate: {len(values)} rounds, widened by {WIDTH}"
    return {"value": widened(values), "unit": unit, "date": f"{datetime.now(UTC):%Y-%m-%d}", "source": source}


def measured(root: str) -> dict[str, dict[str, object]]:
    """Measure every rate that can be measured here and print it; those that cannot are named with the reason."""
    measures: dict[str, Callable[[Path], Iterator[float]]] = {
        "fetch_cpu_per_url": fetch_cpu_per_url,
        "embed_cpu_per_tower": embed_cpu_per_tower,
        "statistics_cpu_per_row": statistics_cpu_per_row,
        "storage_bandwidth": lambda _: storage_bandwidth(open_storage(root)),
    }
    found: dict[str, dict[str, object]] = {}
    for name, measure in measures.items():
        with tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
            try:
                found[name] = entry(name, list(measure(Path(folder))))
            except FileNotFoundError as error:
                print(f"{name}: not measured: {error.filename} is missing; the table's own rate stays")
                continue
        low, high = load().table[name]["value"]
        print(f"{name}: {found[name]['value']} {found[name]['unit']}; the table has [{low:g}, {high:g}]")
    return found


def main(arguments: list[str]) -> int:
    """Measure, and write the file that cluster.rates names."""
    parser = argparse.ArgumentParser(prog="benchmarks.calibrate", description="Measure rates of --plan.")
    parser.add_argument("--root", default="runs", help="folder or bucket whose bandwidth is measured")
    parser.add_argument("--out", type=Path, default=Path("runs/rates.yaml"), help="file that is written")
    options = parser.parse_args(arguments)
    found = measured(options.root)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(yaml.safe_dump(found, sort_keys=False))
    load(str(options.out))
    print(f"--plan counts with it: cluster.rates={options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
