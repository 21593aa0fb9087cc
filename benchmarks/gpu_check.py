"""What a GPU makes of the trainings, part by part: `make gpu-check`, or `python -m benchmarks.gpu_check` without make.

It needs torch, numpy, pyarrow, pydantic and safetensors, and neither a network nor Ray, wandb, img2dataset, obstore or faiss.
Data are generated. Each part runs in a process of its own under its own time limit, and its row is written when it ends:
a run cut short leaves a table. Without a GPU, or with `--toy`, the sizes are those of a test. docs/gpu.md explains the columns.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

LIMIT_S = 60.0
"""Seconds of one part, unless it names its own."""
PRIORS: dict[str, dict[str, Any]] = {
    "toy": {"dim": 16, "width": 32, "depth": 1, "heads": 2, "batch": 8, "steps": 12},
    "demo": {"dim": 256, "width": 256, "depth": 4, "heads": 4, "batch": 256, "steps": 60},
    "125m": {"dim": 768, "width": 768, "depth": 12, "heads": 12, "batch": 512, "steps": 40},
    "1b": {"dim": 1536, "width": 2048, "depth": 16, "heads": 32, "batch": 256, "steps": 24},
}
DECODERS: dict[str, dict[str, Any]] = {
    "toy": {"dim": 16, "latent": 12, "width": 32, "depth": 1, "batch": 8, "steps": 12},
    "real": {"dim": 768, "latent": 384, "width": 2048, "depth": 8, "batch": 1024, "steps": 40},
}
TOWERS = {"toy": ("ViT-S-32-alt",), "real": ("ViT-B-32", "ViT-L-14")}
NEEDS = {"embed": ("open_clip", "PIL"), "generate": ()}
"""Libraries of a part beside those every part needs; trainings need DeepSpeed."""
Figures = dict[str, Any]


def prior(size: str, **settings: Any) -> Figures:
    """Train a prior for some steps by the common loop; returns the figures of its last lap."""
    from benchmarks.gpu_trainings import CheckedPrior, trained

    return trained(CheckedPrior, PRIORS[size], **settings)


def zero(size: str) -> Figures:
    """Train under every ZeRO stage; returns samples per second and memory of each."""
    found = {stage: prior(size, zero_stage=stage) for stage in range(4)}
    return {
        f"stage {stage} {name}": told[name] for stage, told in found.items() for name in ("samples/s", "GiB")
    }


def decoder(size: str) -> Figures:
    """Train a decoder for some steps."""
    from benchmarks.gpu_trainings import CheckedDecoder, trained

    return trained(CheckedDecoder, DECODERS[size])


def precision(size: str) -> Figures:
    """Train the same steps in bf16 and in fp32; returns both losses and how far apart they are."""
    low, high = (prior(size, precision=kind)["loss"] for kind in ("bf16", "fp32"))
    return {"bf16 loss": low, "fp32 loss": high, "relative difference": abs(low - high) / abs(high)}


def resume(size: str) -> Figures:
    """Train whole, and cut in the middle and resumed; returns whether the weights are equal to the last bit."""
    from benchmarks.gpu_trainings import resumed_is_equal

    return {"bit-equal": resumed_is_equal(PRIORS[size])}


def generate(size: str) -> Figures:
    """Sample embeddings and paint pictures with untrained networks; returns seconds per picture, alone and among 64."""
    from benchmarks.gpu_trainings import seconds_per_picture

    sizes = PRIORS[size], DECODERS["toy" if size == "toy" else "real"]
    return {f"s/picture, {count} at once": seconds_per_picture(*sizes, count) for count in (1, 64)}


def embed(size: str) -> Figures:
    """Decode generated JPEGs and embed them; returns pictures per second of each tower, with and without decoding."""
    from benchmarks.gpu_trainings import embedding_rates

    return {
        name: rate for tower in TOWERS[size] for name, rate in embedding_rates(tower, size == "toy").items()
    }


PARTS: dict[str, Callable[[bool], Figures]] = {
    "prior-demo": lambda toy: prior("toy" if toy else "demo"),
    "prior-125m": lambda toy: prior("toy" if toy else "125m", precision="bf16"),
    "prior-1b": lambda toy: prior("toy" if toy else "1b", precision="bf16", zero_stage=1),
    "zero": lambda toy: zero("toy" if toy else "125m"),
    "decoder": lambda toy: decoder("toy" if toy else "real"),
    "precision": lambda toy: precision("toy" if toy else "demo"),
    "resume": lambda toy: resume("toy" if toy else "demo"),
    "generate": lambda toy: generate("toy" if toy else "demo"),
    "embed": lambda toy: embed("toy" if toy else "real"),
}


def missing(part: str) -> str:
    """Return the first library of a part that is not installed, '' where all are."""
    names = NEEDS.get(part, ("deepspeed",))
    return next((name for name in names if importlib.util.find_spec(name) is None), "")


def run_part(part: str, toy: bool, limit_s: float) -> Figures:
    """Run a part in a process of its own; returns its figures, or what became of it."""
    lacking = missing(part)
    if lacking:
        return {"left out": f"{lacking} is missing"}
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--inside", part, *(["--toy"] if toy else [])]
    home = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"stopped": f"its {limit_s:g} s were over"}
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": said[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def inside(part: str, toy: bool) -> None:
    """Run a part here and print its figures as the last line."""
    figures = PARTS[part](toy)
    print(json.dumps(figures), flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table, one line per figure."""
    lines = ["| part | figure | value |", "|---|---|---|"]
    for row in rows:
        for name, value in row["figures"].items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"| {row['part']} | {name} | {shown} |")
    return "\n".join(lines) + "\n"


def device_row(toy: bool) -> dict[str, Any]:
    """Return what the figures were measured on."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    versions = {"torch": torch.__version__, "CUDA": str(torch.version.cuda)}
    return {"part": "device", "figures": {"name": name, "sizes": "toy" if toy else "full", **versions}}


def main() -> int:
    """Run the chosen parts; returns 1 where one failed or was stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--toy", action="store_true", help="sizes of a test; always so without a GPU")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds of one part")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"))
    parser.add_argument("--inside", choices=list(PARTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    toy = arguments.toy or not torch.cuda.is_available()
    if arguments.inside:
        inside(arguments.inside, toy)
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [device_row(toy)]
    for part in arguments.parts:
        started = time.monotonic()
        figures = run_part(part, toy, arguments.limit_s)
        rows.append({"part": part, "figures": {**figures, "seconds": round(time.monotonic() - started, 1)}})
        (arguments.out / "table.md").write_text(table(rows))
        (arguments.out / "rows.json").write_text(json.dumps(rows, indent=1))
        print(table(rows[-1:]).split("\n", 2)[2], end="", flush=True)
    return int(any({"failed", "stopped"} & row["figures"].keys() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
