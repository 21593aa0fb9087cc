"""Every benchmark of docs/benchmarks.md in turn, each once the machine is idle: `make bench-all`.

`python -m benchmarks.all NAME ...` runs those named; `--list` prints each with the minutes it takes on two cores. The machine must
do nothing else meanwhile (benchmarks/load.py): what was not recorded is named at the end, and the exit code is 1.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import RESULTS
from benchmarks.load import QUIET_LOAD, wait_until_idle

HOME = Path(__file__).resolve().parents[1]
IDLE_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Benchmark:
    """One module of this folder: what prepares it, the minutes it takes on two cores, and what it needs."""

    module: str
    minutes: float
    arguments: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()
    needs: str = ""


ALL = {
    "plan": Benchmark("plan", 3),
    "store": Benchmark("store", 2),
    "shuffles": Benchmark("shuffles", 4),
    "store_latency": Benchmark("store_latency", 7),
    "curate": Benchmark("curate", 16),
    "feed": Benchmark("feed", 3),
    "download": Benchmark("download", 19, needs="nginx"),
    "statistics": Benchmark("shift_statistics", 4),
    "embed": Benchmark("embed", 8, needs="a run of make demo"),
    "generate": Benchmark("generate", 4, needs="a run of make demo"),
    "memorisation": Benchmark("memorisation", 2, ("runs/openmoji",), needs="a run of make demo"),
    "overlap": Benchmark("overlap", 7, needs="a run of make demo"),
    "serving": Benchmark("serving", 4, needs="a run of make demo"),
    "noise": Benchmark("noise", 1),
    "checkpoint": Benchmark("checkpoint", 6),
    "noise_levels": Benchmark("noise_levels", 3, needs="a run of make demo"),
    "decoder": Benchmark("decoder", 3),
    "autoencoder": Benchmark("autoencoder", 2),
    "training": Benchmark("training", 25),
    "prior": Benchmark("prior", 10, ("--peer",), ("bash", "benchmarks/peer_dalle2.sh")),
}
"""By the name of their results, the quick ones first."""


def recorded(name: str) -> float:
    """Return when a benchmark's figures were recorded last, 0 for never."""
    path = RESULTS / f"{name}.json"
    return path.stat().st_mtime if path.exists() else 0.0


def run(name: str) -> bool:
    """Run a benchmark once the machine is idle; return whether its figures were recorded."""
    chosen, before = ALL[name], recorded(name)
    if chosen.prepare:
        subprocess.run(chosen.prepare, cwd=HOME, check=True)
    if not wait_until_idle(IDLE_TIMEOUT_S):
        print(f"{name}: the load stayed above {QUIET_LOAD}", flush=True)
        return False
    print(f"{name}: about {chosen.minutes:g} minutes", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{chosen.module}", *chosen.arguments]
    done = subprocess.run(command, cwd=HOME, check=False)
    return done.returncode == 0 and recorded(name) > before


def main(arguments: list[str]) -> int:
    """Run the benchmarks named, by default all; return 1 where one was not recorded."""
    parser = argparse.ArgumentParser(description="Record all benchmarks.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; all when none is named"
    )
    parser.add_argument("--list", action="store_true", help="print them and run nothing")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in ALL]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; they are {', '.join(ALL)}")
    names = options.names or list(ALL)
    if options.list:
        for name in names:
            print(f"{name:<14} about {ALL[name].minutes:>4g} minutes {ALL[name].needs}".rstrip())
        print(
            f"{'together':<14} about {sum(ALL[name].minutes for name in names):>4g} minutes, and the waiting for an idle machine"
        )
        return 0
    missing = [name for name in names if not run(name)]
    print(f"not recorded: {', '.join(missing)}" if missing else "all recorded", flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
