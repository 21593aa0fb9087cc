"""The prior's speed: our loop beside a bare one, captions read once or in every step, four noise levels a caption or one.

make bench-prior             (= python -m benchmarks.prior; with --peer also DALLE2-pytorch 1.15.6 in its own environment)
One machine, one run, alternating, medians. The shape: width 512, depth 6, 81 tokens before the noise, batch 32.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.figures import Figures, alternated, ratios
from benchmarks.precision import computed
from corgi.diffusion.loss import loss_weight, squared_error, weighted_loss
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.embedder import Sampling
from corgi.models.prior import Prior, PriorConfig
from corgi.models.text_prior import TextPrior
from corgi.settings.training import TrackingSettings, TrainingSettings

HOME = Path(__file__).resolve().parents[1]
WIDTH, DEPTH, WORDS, BATCH, LEVELS, STEPS = 512, 6, 80, 32, 4, 64
SAMPLED = 8


class Shape:
    """The benchmark's network and fixed random inputs; built anew by every side, from one seed."""

    def __init__(self) -> None:
        """Build the inputs."""
        torch.manual_seed(0)
        self.process = ShiftedDiffusion(ShiftTable.dalle2(WIDTH), Schedule.linear())
        self.rows = {
            "image": torch.nn.functional.normalize(torch.randn(BATCH, WIDTH), dim=-1),
            "text": torch.randn(BATCH, WIDTH),
            "encodings": torch.randn(BATCH, WORDS, WIDTH),
        }

    def network(self) -> Prior:
        """Return fresh weights."""
        torch.manual_seed(1)
        config = PriorConfig(
            WIDTH, WIDTH, WIDTH, DEPTH, WIDTH // 64, num_text_tokens=WORDS, encoding_dim=WIDTH
        )
        return Prior(config, self.process.table)

    def loss(self, model: Callable[..., Tensor], rows: dict[str, Tensor], levels: int) -> Tensor:
        """Return the weighted loss of every caption at `levels` noise levels."""
        batch, cluster = len(rows["image"]), torch.zeros(len(rows["image"]), dtype=torch.int64)
        z_0, flat = rows["image"].repeat_interleave(levels, 0), cluster.repeat_interleave(levels)
        t = torch.randint(1, 1001, (batch * levels,))
        z_t = self.process.q_sample(z_0, t, torch.randn_like(z_0), flat)
        shape = (batch, levels) if levels > 1 else (batch,)
        estimate = model(z_t.view(*shape, -1), t.view(shape), rows["text"], cluster, rows["encodings"])
        weight = loss_weight(self.process.schedule, t, "one_minus_abar")
        return weighted_loss(squared_error(z_0, estimate.view_as(z_0)), weight)


class BenchObjective(Shape):
    """The same shape as the common loop takes it."""

    def model(self) -> Prior:
        """Build the network."""
        return self.network()

    def rows_of(self) -> "BenchRows":
        """Return the rows."""
        return BenchRows(self.rows)


class BenchRows:
    """The inputs as training rows of one unit."""

    def __init__(self, rows: dict[str, Tensor]) -> None:
        """Keep them as arrays."""
        self.arrays = {name: value.numpy() for name, value in rows.items()}
        self.counts = [BATCH]

    def load(self, unit: int) -> dict[str, Any]:
        """Return all of them."""
        return self.arrays


class LoopObjective:
    """What the common loop is given."""

    def __init__(self, levels: int) -> None:
        """Build the shape."""
        self.shape, self.levels = BenchObjective(), levels

    def model(self) -> Prior:
        """Build the network."""
        return self.shape.model()

    def rows(self) -> BenchRows:
        """Return the rows."""
        return self.shape.rows_of()

    def place(self, device: torch.device) -> None:
        """Hold nothing that has a device."""

    def loss(self, model: Any, batch: dict[str, Tensor], noise: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss."""
        return self.shape.loss(model, batch, self.levels), {}

    def evaluate(self, model: Any) -> dict[str, float]:
        """Measure nothing."""
        return {}


def bare_training(levels: int, precision: str) -> Callable[[], float]:
    """Return a call that takes one training step in plain PyTorch and gives its seconds a (caption, noise) sample."""
    shape = Shape()
    model = shape.network()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    cast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    def once() -> float:
        started = time.perf_counter()
        with cast:
            loss = shape.loss(model, shape.rows, levels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return (time.perf_counter() - started) / (BATCH * levels)

    once()
    return once


def our_loop(num_steps: int, precision: str) -> float:
    """Return the common loop's samples a second in this process, the first logged lap left out."""
    import torch.distributed as dist

    from corgi.training.loop import train_loop
    from corgi.training.training import Training

    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
    if not dist.is_initialized():
        store = dist.HashStore()
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    half = num_steps // 2
    settings = TrainingSettings(
        num_steps=num_steps,
        global_batch=BATCH,
        lr=1e-4,
        precision="bf16" if precision == "bf16" else "fp32",
        zero_stage=0,
        cpus_per_worker=float(torch.get_num_threads()),
        checkpoint_every_steps=num_steps,
        log_every_steps=half,
    )
    with tempfile.TemporaryDirectory() as folder:
        tracking = TrackingSettings(mode="disabled")
        training = Training("bench", folder, LoopObjective, {"levels": 1}, settings, tracking, "bench", 0)
        train_loop(training)
        timed = [json.loads(line) for line in (Path(folder) / "timings.jsonl").read_text().splitlines()]
    return float(timed[-1]["samples_per_s"])


def sampling(shape: Shape, read_once: bool, candidates: int) -> Callable[[], float]:
    """Return a call that samples captions and gives its seconds; without `read_once` every step reads them again."""
    network = shape.network().eval()
    if not read_once:
        whole = network.prefix

        def forgetful(*inputs: Any) -> Any:
            return whole(*inputs)._replace(memory=())

        network.prefix = forgetful  # pyright: ignore[reportAttributeAccessIssue]
    prior = TextPrior(network, shape.process)
    text, words = shape.rows["text"][:SAMPLED], shape.rows["encodings"][:SAMPLED]

    def once() -> float:
        started = time.perf_counter()
        chosen = Sampling(STEPS, num_candidates=candidates)
        prior.sample(text, range(SAMPLED), chosen, words)
        return time.perf_counter() - started

    return once


def peer(work: str, batch: int, repeats: int, precision: str) -> float:
    """Return the peer's seconds for one training step or one sampling of a batch."""
    python = HOME / "benchmarks" / ".peers" / "dalle2" / "bin" / "python"
    script = HOME / "benchmarks" / "peer_dalle2.py"
    sizes = [str(value) for value in (WIDTH, DEPTH, WORDS, batch)]
    command = [str(python), str(script), *sizes, work, str(STEPS), str(repeats), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> int:
    """Print and keep every figure."""
    parser = argparse.ArgumentParser(description="Time the prior.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each pair")
    parser.add_argument("--peer", action="store_true", help="time DALLE2-pytorch too")
    parser.add_argument(
        "--loop-steps", type=int, default=20, help="steps of the common loop; 0: leave it out"
    )
    arguments = parser.parse_args()
    figures, shape = Figures("prior", "torch", "deepspeed", "ray"), Shape()
    for precision in computed(("fp32", "bf16")):
        one, four = alternated(
            arguments.rounds, bare_training(1, precision), bare_training(LEVELS, precision)
        )
        rates = [1 / seconds for seconds in one]
        figures.add_rounds(f"prior_bare_training_{precision}", rates, "samples/s")
        packed = ratios(one, four)
        figures.add_rounds(f"prior_packed_k{LEVELS}_over_separate_{precision}", packed, "x", ">=3")
        if arguments.loop_steps:
            ratio = our_loop(arguments.loop_steps, precision) / median(rates)
            figures.add(f"prior_loop_over_bare_{precision}", ratio, "x", ">=0.9")
        if arguments.peer:
            theirs = BATCH / peer("train", BATCH, arguments.rounds, precision)
            over = [rate / theirs for rate in rates]
            figures.add_rounds(f"prior_training_over_dalle2_{precision}", over, "x", ">=1")
    again, once = alternated(min(3, arguments.rounds), sampling(shape, False, 1), sampling(shape, True, 1))
    figures.add_rounds(f"prior_sampling_{STEPS}_steps_captions_read_once", ratios(again, once), "x")
    two, both = alternated(min(3, arguments.rounds), sampling(shape, False, 2), sampling(shape, True, 2))
    figures.add_rounds(f"prior_sampling_{STEPS}_steps_2_candidates_read_once", ratios(two, both), "x")
    if arguments.peer:
        theirs = peer("sample", SAMPLED, 3, "fp32")
        figures.add_rounds("prior_sampling_over_dalle2", [theirs / ours for ours in once], "x", ">=8")
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
