"""The demo's decoder beside that of release 0.1.0: same pictures, same embeddings, three seeds of the decoder's training each.

python -m benchmarks.decoders [ARM-SEED ...]     (about 90 minutes on two cores; needs a finished `make demo`, whose stages it takes over)

Each training leaves a small file under docs/results/decoders/, and those that are there are not run again: delete one to
repeat it. The tables are written into docs/results.md from all files.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison_page import table
from corgi.evaluation.metrics import student_interval
from corgi.tables.run import Run

HOME = Path(__file__).resolve().parents[1]
FOUND, PAGE = HOME / "docs" / "results" / "decoders", HOME / "docs" / "results.md"
_BLOCK = re.compile(r"(<!-- figures: decoders -->\n).*?(<!-- end -->)", re.DOTALL)
SEEDS = (0, 1, 2)
RELEASE_0_1 = (
    *("autoencoder.kind=linear", "autoencoder.latent_dim=384", "decoder.network=mlp"),
    *("decoder.width=640", "decoder.depth=4", "decoder.guidance=1.5"),
    *(
        "decoder.training.num_steps=1600",
        "decoder.training.global_batch=256",
        "decoder.training.ema_decay=0.995",
    ),
    *("decoder.training.num_workers=1", "decoder.training.cpus_per_worker=2"),
)
"""The decoder of release 0.1.0 as its demo had it, but in fp32 as everything else here."""
ARMS: Mapping[str, tuple[str, ...]] = {"mlp": RELEASE_0_1, "unet": ()}
GROUPS, WAY, SPACE = ("TRAIN", "HELD-OUT PAIR", "HELD-OUT CONCEPT"), "from true embedding", "independent"
MEASURES = ("similarity", "R@1", "R@1 among all", "R@1 of the first 40", "R@1 of the first 40 among all")
COPIES = "nearer to the retrieved one"

Figures = Mapping[str, Any]


def name_of(arm: str, seed: int) -> str:
    """Return the name of a training, of its run and of its file."""
    return f"{arm}-{seed}"


def train(arm: str, seed: int) -> None:
    """Train and evaluate one decoder over the demo's tables and keep its figures."""
    name = name_of(arm, seed)
    overrides = (f"name={name}", f"decoder.seed={seed}", "prior.variants=[shifted]", *ARMS[arm])
    subprocess.run([sys.executable, "pipelines/demo.py", *overrides], cwd=HOME, check=True)
    run = Run.open(HOME / "runs" / name)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    found = {
        group: {way: figures_of(metrics, group, way) for way in (WAY, "from prior")}
        for group in GROUPS
        if group in metrics["pictures"]
    }
    FOUND.mkdir(parents=True, exist_ok=True)
    kept = {"arm": arm, "seed": seed, "overrides": overrides, "figures": found}
    (FOUND / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def figures_of(metrics: Figures, group: str, way: str) -> dict[str, float]:
    """Return the independent judge's measures of a group, and the share of copies where it was taken."""
    judged = metrics["pictures"][group][SPACE][way]
    copied = metrics["copying"].get(group, {}).get(SPACE, {}).get(way, {})
    chosen = {name: judged[name] for name in MEASURES if name in judged}
    return chosen | {name: value for name, value in copied.items() if name == COPIES}


def kept() -> dict[str, dict[int, Figures]]:
    """Return the figures of every training that left a file, by arm and seed."""
    found: dict[str, dict[int, Figures]] = {}
    for path in sorted(FOUND.glob("*.json")):
        one = json.loads(path.read_text())
        found.setdefault(one["arm"], {})[one["seed"]] = one["figures"]
    return found


def parts(found: Mapping[str, Mapping[int, Figures]]) -> Iterable[str]:
    """Yield the table of each group, and for held-out pictures the ratio of the two decoders."""
    for group in GROUPS:
        rows = [
            [
                arm,
                way,
                str(len(by_seed)),
                *(over_seeds(by_seed, group, way, name) for name in (*MEASURES, COPIES)),
            ]
            for arm, by_seed in found.items()
            for way in (WAY, "from prior")
        ]
        yield f"### {group}, independent space\n"
        yield table(["decoder", "painted", "seeds", *MEASURES, COPIES], rows)
    seeds = sorted(set(found.get("mlp", {})) & set(found.get("unet", {})))
    if seeds:
        ratio = [
            found["unet"][seed]["HELD-OUT PAIR"][WAY]["similarity"]
            / found["mlp"][seed]["HELD-OUT PAIR"][WAY]["similarity"]
            for seed in seeds
        ]
        yield f"Similarity of held-out pairs, unet over mlp, by seed: {', '.join(f'{one:.2f}' for one in ratio)}; mean {between(ratio)}.\n"


def over_seeds(by_seed: Mapping[int, Figures], group: str, way: str, name: str) -> str:
    """Return the mean over seeds and its 95 % interval; nothing where it was not measured."""
    values = [found[group][way][name] for found in by_seed.values() if name in found[group][way]]
    return between(values) if values else ""


def between(values: list[float]) -> str:
    """Return a mean and its 95 % interval (Student), the interval left out for one value."""
    mean = float(np.mean(values))
    low, high = student_interval(np.array(values))
    return f"{mean:.3f}" if len(values) < 2 else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def write_page() -> None:
    """Fill the decoders' block of docs/results.md."""
    text = "\n".join(parts(kept()))
    PAGE.write_text(_BLOCK.sub(lambda block: f"{block[1]}{text}{block[2]}", PAGE.read_text()))


def main() -> int:
    """Train what is named, by default all that left no file, and write the page after each."""
    everything = {name_of(arm, seed): (arm, seed) for seed in SEEDS for arm in ARMS}
    parser = argparse.ArgumentParser(description="Compare the demo's decoder with that of release 0.1.0.")
    parser.add_argument(
        "names", nargs="*", choices=[[], *everything], metavar="ARM-SEED", help="trainings (default: all)"
    )
    names = parser.parse_args().names or list(everything)
    for name in names:
        if not (FOUND / f"{name}.json").exists():
            train(*everything[name])
        write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
