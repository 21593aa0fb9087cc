"""Download: this stage against img2dataset on the same list, machine and output size: `make bench-download`.

nginx on loopback serves both, plain and TLS. Each run is a fresh process; its images per second are taken from the first
request in nginx's log to the last file written, its CPU-seconds from the kernel, less those of a run over a handful of URLs,
which is the price of starting. The two alternate; medians are told.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.figures import Figures, ratios
from benchmarks.web import PLAIN_PORT, TLS_PORT, make_site, serving

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
NUM_URLS = {
    "web": int(os.environ.get("BENCH_WEB", "4000")),
    "small": int(os.environ.get("BENCH_SMALL", "10000")),
}
NUM_BODIES = 400
NUM_WARM = 32
SHARD_ROWS = 1000
"""Pictures a shard on both sides: img2dataset's default is larger, but then few processes would have work."""
GOALS = {("web", "http"): 2.0, ("web", "https"): 2.5, ("small", "http"): 1.3, ("small", "https"): 2.0}
"""Our images per second over img2dataset's."""
_OUTPUTS = {"corgi": "runs/store/download/*/*", "img2dataset": "out/*_stats.json"}
_PR_SET_CHILD_SUBREAPER = 36
_OPTIONS = {"image_size": 256, "resize_mode": "keep_ratio", "encode_format": "jpg", "encode_quality": 95}


@dataclass(frozen=True)
class Measured:
    """One run: images per second and CPU-milliseconds an image, start excluded, and images made."""

    images_per_s: float
    cpu_ms: float
    images: int


def main() -> int:
    """Measure every case and print one line a figure."""
    figures = Figures("download", "img2dataset", "aiohttp", "opencv-python-headless", "pillow")
    with tempfile.TemporaryDirectory(prefix="corgi-bench-") as folder:
        root = Path(folder)
        names = {kind: make_site(root / "site", kind, NUM_BODIES) for kind in NUM_URLS}
        with serving(root):
            for kind, scheme in GOALS:
                case(root, kind, scheme, names[kind], figures)
    figures.write()
    return 0


def case(root: Path, kind: str, scheme: str, names: Sequence[str], figures: Figures) -> None:
    """Measure one list over one protocol: both sides, alternating, medians."""
    port = PLAIN_PORT if scheme == "http" else TLS_PORT
    base = f"{scheme}://127.0.0.1:{port}"
    urls = [f"{base}/{names[number % len(names)]}?{number}" for number in range(NUM_URLS[kind])]
    runs: dict[str, list[Measured]] = {"corgi": [], "img2dataset": []}
    start = {peer: run(root, peer, urls[:NUM_WARM]) for peer in runs}
    for _ in range(ROUNDS):
        for peer, found in runs.items():
            found.append(measured(run(root, peer, urls), start[peer]))
    label = f"download/{kind}/{scheme}"
    speeds = {peer: [one.images_per_s for one in found] for peer, found in runs.items()}
    costs = {peer: [one.cpu_ms for one in found] for peer, found in runs.items()}
    for peer, found in runs.items():
        figures.add_rounds(f"{label}/{peer}/images_per_s", speeds[peer], "1/s")
        figures.add_rounds(f"{label}/{peer}/cpu_per_image", costs[peer], "CPU-ms")
        figures.add(f"{label}/{peer}/images", min(one.images for one in found), "images")
    faster = ratios(speeds["corgi"], speeds["img2dataset"])
    figures.add_rounds(f"{label}/speed_ratio", faster, "x", f">={GOALS[kind, scheme]}")
    figures.add_rounds(f"{label}/cpu_ratio", ratios(costs["img2dataset"], costs["corgi"]), "x")


def run(root: Path, peer: str, urls: Sequence[str]) -> dict[str, float]:
    """Run one side over URLs in a process of its own; return seconds, CPU-seconds and images."""
    work = root / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    listed = work / "urls.parquet"
    pq.write_table(pa.table({"url": list(urls)}), listed)
    log = root / "access.log"
    before = log.stat().st_size
    environment = {
        **os.environ,
        "SSL_CERT_FILE": str(root / "bundle.pem"),
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    with (work / "log").open("wb") as sink:
        subprocess.run(
            [sys.executable, __file__, "timed", peer, str(listed), str(work)],
            env=environment,
            stdout=sink,
            stderr=sink,
            check=True,
        )
    cpu_s = json.loads((work / "cpu.json").read_text())
    subprocess.run(["sleep", "1.2"], check=True)  # nginx flushes its log once a second
    with log.open("rb") as handle:
        handle.seek(before)
        times = [float(line) for line in handle.read().split()]
    images = json.loads((work / "done.json").read_text())
    last_file = max(path.stat().st_mtime for path in work.glob(_OUTPUTS[peer]))
    return {"seconds": last_file - min(times), "cpu_s": cpu_s, "images": images, "urls": len(urls)}


def measured(found: dict[str, float], start: dict[str, float]) -> Measured:
    """Return a run's figures, the CPU of starting taken off."""
    images = found["images"]
    extra = images - start["images"]
    return Measured(images / found["seconds"], (found["cpu_s"] - start["cpu_s"]) / extra * 1e3, int(images))


def timed(side: str, listed: Path, work: Path) -> None:
    """Run one side and write the CPU-seconds of all its processes, those that it leaves behind included."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    subprocess.run([sys.executable, __file__, side, str(listed), str(work)], check=True)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    (work / "cpu.json").write_text(json.dumps(used.ru_utime + used.ru_stime))


def run_corgi(listed: Path, work: Path) -> int:
    """Make shards as the download stage's actors do, an actor a core: fetch, decode, filter, write, commit; return images kept."""
    urls = pq.read_table(listed)["url"].to_pylist()
    root, num_actors = str(work / "runs"), os.cpu_count() or 1
    tasks = [
        planned(root, number, urls[first : first + SHARD_ROWS])
        for number, first in enumerate(range(0, len(urls), SHARD_ROWS))
    ]
    with ProcessPoolExecutor(num_actors, mp_context=multiprocessing.get_context("spawn")) as actors:
        return sum(actors.map(made, [tasks[place::num_actors] for place in range(num_actors)]))


def planned(root: str, number: int, urls: Sequence[str]) -> Any:
    """Commit a shard of the plan and return the task that downloads it."""
    from corgi.settings.data import DownloadSettings
    from corgi.tables.manifest import RowCounts
    from corgi.tables.schema import PLAN
    from corgi.tables.store import ShardTask, Store

    given = {"group": "g", "split": "train", "captions": [], "sources": ["list"]}
    rows = [
        {**given, "uid": f"{number * SHARD_ROWS + n:032x}", "url": url, "rows": [n]}
        for n, url in enumerate(urls)
    ]
    plan = ShardTask(root, "plan", f"{number:05d}", f"{number:032x}", 1, "", {})
    with Store(root).attempt(plan) as attempt:
        attempt.write_table("plan", pa.Table.from_pylist(rows, schema=PLAN))
        committed = attempt.commit(RowCounts(rows_in=len(rows), kept=len(rows)))
    settings = DownloadSettings.model_validate(
        {**_OPTIONS, "allow_private": [f"127.0.0.1:{PLAIN_PORT}", f"127.0.0.1:{TLS_PORT}"], **OWN_SETTINGS}
    )
    download = {"download": settings.model_dump(mode="json")}
    inputs = {"plan": (committed.path,)}
    return ShardTask(root, "download", plan.shard, f"{2**64 + number:032x}", 1, "", download, inputs)


def made(tasks: Sequence[Any]) -> int:
    """Make shards one after another, as one actor does; return images kept."""
    from corgi.download.stage import DownloadShards

    maker = DownloadShards()
    try:
        return sum(maker.make(task).rows.kept for task in tasks)
    finally:
        maker.close()


OWN_SETTINGS = {"connections": 64, "decode_processes": int(os.environ.get("BENCH_DECODERS", "2"))}


def run_img2dataset(listed: Path, work: Path) -> int:
    """Run the library with a process a core; return images kept."""
    from img2dataset import download

    download(
        url_list=str(listed),
        input_format="parquet",
        url_col="url",
        output_folder=str(work / "out"),
        output_format="parquet",
        processes_count=os.cpu_count() or 1,
        thread_count=64,
        number_sample_per_shard=SHARD_ROWS,
        compute_hash="sha256",
        extract_exif=False,
        enable_wandb=False,
        **_OPTIONS,
    )
    stats = [json.loads(path.read_text()) for path in (work / "out").glob("*_stats.json")]
    return sum(entry["successes"] for entry in stats)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    *_, side, source, target = sys.argv
    if sys.argv[1] == "timed":
        timed(side, Path(source), Path(target))
        sys.exit(0)
    done = {"corgi": run_corgi, "img2dataset": run_img2dataset}[side](Path(source), Path(target))
    (Path(target) / "done.json").write_text(json.dumps(done))
