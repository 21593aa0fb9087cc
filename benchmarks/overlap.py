"""Download and embed together beside the slower of the two alone: the demo's pictures over loopback, the demo's tower trained beforehand.

make bench-overlap           (= python -m benchmarks.overlap; needs a run of make demo or make smoke)
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.embed import RUNS
from benchmarks.figures import Figures
from corgi.clip.references import model_shard
from corgi.tables.run import Run

HOME = Path(__file__).resolve().parents[1]


def tower_of(run: Run) -> str:
    """Return a run's trained tower as a recipe names a local checkpoint."""
    shard = model_shard(run.shards("tower"))
    if shard is None:
        raise SystemExit(f"{run.folder} has no trained tower: run make demo or make smoke first")
    checkpoint, config = (str(run.store.path(shard, name).resolve()) for name in ("checkpoint", "config"))
    return json.dumps([{"name": "own", "model": "own", "pretrained": checkpoint, "config": config}])


def flow(folder: Path, tower: str, *arguments: str) -> tuple[float, float]:
    """Run the demo's flow on all pictures and return its seconds and the machine's CPU-seconds meanwhile."""
    command = [
        *(sys.executable, "pipelines/demo.py", "--work", str(folder / "site"), "tower=null"),
        *(f"embed.towers={tower}", f"root={folder / 'runs'}", *arguments),
    ]
    busy, started = _busy_s(), time.monotonic()
    subprocess.run(
        command, cwd=HOME, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "TQDM_DISABLE": "1"}
    )
    return time.monotonic() - started, _busy_s() - busy


def _busy_s() -> float:
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def main() -> int:
    """Print and keep every figure."""
    parser = argparse.ArgumentParser(description="Time download and embed, apart and together.")
    parser.add_argument("--run", help="a run with a trained tower (default: runs/openmoji or runs/smoke)")
    chosen = parser.parse_args().run or next((run for run in RUNS if Path(run).exists()), RUNS[0])
    tower = tower_of(Run.open(chosen))
    figures = Figures("overlap", "ray", "torch")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flow(folder, tower, "--until", "plan")  # renders the site's pictures, which no figure counts
        download_s, download_cpu_s = flow(folder, tower, "--until", "download")
        embed_s, embed_cpu_s = flow(folder, tower, "--only", "embed")
        both_s, _ = flow(folder, tower, "--until", "embed", "name=together", f"root={folder / 'together'}")
        turn_s, _ = flow(
            *(folder, tower, "--until", "embed", "name=in-turn", f"root={folder / 'in-turn'}"),
            "cluster.side_by_side=false",
        )
    cores = os.cpu_count() or 1
    bound_s = max(download_s, embed_s, (download_cpu_s + embed_cpu_s) / cores)
    figures.add("overlap_download_alone", download_s, "s")
    figures.add("overlap_embed_alone", embed_s, "s")
    figures.add("overlap_cpu_of_both_over_cores", (download_cpu_s + embed_cpu_s) / cores, "s")
    figures.add("overlap_in_turn", turn_s, "s")
    figures.add("overlap_together", both_s, "s")
    figures.add("overlap_together_vs_bound", both_s / bound_s, "x", "<=1.15")
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
