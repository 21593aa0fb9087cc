"""One loop for every model: what a worker does from the first step, or the last checkpoint, to the final weights."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corgi.settings.errors import InputError
from corgi.training import tracking
from corgi.training.checkpoint import Checkpoint, Checkpoints, finish, is_finished
from corgi.training.ema import Ema
from corgi.training.engine import (
    backward,
    build_engine,
    learning_rate,
    load_engine,
    micro_batches,
    prepare_process,
    save_engine,
    set_lr,
    skipped,
)
from corgi.training.feed import Batch, Feed, Order
from corgi.training.noise import Noise
from corgi.training.objective import Objective
from corgi.training.ranks import barrier, from_first, gathered, rank, world_size
from corgi.training.training import Training

Report = Callable[[dict[str, Any]], None]
_EMA_FILE = "ema.safetensors"


def train_loop(training: Training, report: Report = lambda _: None) -> None:
    """Train to the end, from the newest whole checkpoint; a collective of an initialised process group.

    `report` is called on every rank at each checkpoint.

    Raises:
        InputError: the loss stayed non-finite for `max_nonfinite_steps` steps.

    """
    if from_first(is_finished(training) if rank() == 0 else None):
        return
    prepare_process(training.settings)
    loop = _Loop(training, report)
    try:
        loop.resume()
        loop.run()
        loop.finish()
    finally:
        loop.close()


class _Loop:
    """The state of one training in one worker."""

    def __init__(self, training: Training, report: Report) -> None:
        self.training = training
        self.settings = training.settings
        self.report = report
        self.device = (
            torch.device("cuda", torch.cuda.current_device())
            if self.settings.use_gpu
            else torch.device("cpu")
        )
        self.objective: Objective = training.build()
        torch.manual_seed(training.seed)
        model = self.objective.model().to(self.device)
        self.ema = Ema(model, self.settings.ema_decay, keeper=rank() == 0)
        self.engine = build_engine(model, self.settings)
        rows = self.objective.rows()
        order = Order(rows.counts, training.seed, self.settings.shuffle_window)
        self.feed = Feed(rows, order, self.settings.global_batch, (rank(), world_size()))
        self.checkpoints = Checkpoints(training, self.settings.keep_checkpoints)
        self.num_micro = micro_batches(self.settings)
        self.step = 0
        self.num_skipped = 0
        self.means = Means()
        self.figures: dict[str, float] = {}
        self.tracker: tracking.Tracker | None = None
        self._evaluated: nn.Module | None = None

    def resume(self) -> None:
        """Restore the newest whole checkpoint, if there is one, and open the metric files after its step."""
        found = self.checkpoints.newest()
        if found is not None:
            load_engine(self.engine, found, self.settings)
            self._restore(found)
        if rank() == 0:
            self.tracker = tracking.Tracker(self.training, self.step)
            self._say(f"from step {self.step} of {self.settings.num_steps}, {world_size()} workers")

    def run(self) -> None:
        """Take the remaining steps."""
        clock = Clock()
        batches = self.feed.batches(self.step, self.settings.num_steps)
        try:
            for batch in clock.waiting(batches):
                self._take(batch.to(self.device))
                self.step += 1
                self._after_step(clock)
        finally:
            batches.close()

    def finish(self) -> None:
        """Commit the final weights; the last step evaluated them."""
        if rank() == 0:
            facts = {"steps": self.step, "skipped_steps": self.num_skipped, "val": self.figures}
            finish(self.training, self.ema.weights(self.engine.module), facts)
            self._say("done" + "".join(f", {name} {value:.4g}" for name, value in self.figures.items()))
        barrier()

    def close(self) -> None:
        """Close the metric files and give the engine's memory back."""
        if self.tracker is not None:
            self.tracker.finish()
        self.feed.close()
        self.engine.destroy()

    def _take(self, batch: Batch) -> None:
        """Take one optimiser step, or skip it on all ranks alike when something is not finite."""
        set_lr(self.engine, learning_rate(self.settings, batch.step))
        taken = []
        for part in batch.split(self.num_micro):
            torch.manual_seed(_step_seed(self.training.seed, int(part.positions[0])))
            noise = Noise(self.training.seed, part.positions, self.device)
            loss, metrics = self.objective.loss(self.engine, part.columns, noise)
            backward(self.engine, loss)
            self.engine.step()
            taken.append({"loss": loss, **metrics})
        if skipped(self.engine):
            self._skip()
            return
        self.means.add(taken)
        self.ema.update(self.engine.module, self.step - self.num_skipped)

    def _skip(self) -> None:
        self.num_skipped += 1
        if rank() == 0:
            self._say(
                f"step {self.step + 1}: loss or gradient is not finite, step skipped ({self.num_skipped} so far)"
            )
        if self.num_skipped >= self.settings.max_nonfinite_steps:
            raise InputError(
                f"{self.training.name}: {self.num_skipped} steps had a non-finite loss or gradient, the last at step {self.step + 1}; "
                "checkpoints before it are safe; lower training.lr or check the inputs"
            )

    def _after_step(self, clock: "Clock") -> None:
        settings, last = self.settings, self.step == self.settings.num_steps
        if last or self.step % settings.log_every_steps == 0:
            self._log(clock)
        if last or (settings.eval_every_steps and self.step % settings.eval_every_steps == 0):
            self._evaluate()
        if last or self.step % settings.checkpoint_every_steps == 0:
            self._save()

    def _log(self, clock: "Clock") -> None:
        values: dict[str, float | None] = {"loss": None, **self.means.take()}
        values["lr"] = learning_rate(self.settings, self.step - 1)
        values["grad_norm"] = float(self.engine.get_global_grad_norm() or 0.0)
        values["skipped_steps"] = self.num_skipped
        timings = clock.lap(self.settings.global_batch)
        if self.tracker is not None:
            self.tracker.log(self.step, values, timings)
            shown = "-" if values["loss"] is None else f"{values['loss']:.4f}"
            rate = f"{timings['samples_per_s']:.0f} samples/s, waits {timings['data_wait_share']:.0%}"
            self._say(
                f"step {self.step}/{self.settings.num_steps}, loss {shown}, lr {values['lr']:.2e}, {rate}"
            )

    def _evaluate(self) -> None:
        """Evaluate the averaged weights on rank 0 while the others wait for the figures."""
        figures = self._figures() if rank() == 0 else {}
        self.figures = from_first(figures)
        if self.tracker is not None and figures:
            self.tracker.log(self.step, {f"val/{name}": value for name, value in figures.items()})

    @torch.no_grad()
    def _figures(self) -> dict[str, float]:
        if self._evaluated is None:
            self._evaluated = self.objective.model().to(self.device).eval()
        self._evaluated.load_state_dict(self.ema.weights(self.engine.module))
        return {name: float(value) for name, value in self.objective.evaluate(self._evaluated).items()}

    def _save(self) -> None:
        self.means.fold()
        if self.tracker is not None:
            tracking.sync(self.tracker.metrics)
        self.checkpoints.save(self.step, self._state(), self._write)
        self.report({"name": self.training.name, "step": self.step})

    def _write(self, folder: Path) -> None:
        save_engine(self.engine, folder)
        if rank() == 0:
            self.ema.save(folder / _EMA_FILE)

    def _state(self) -> dict[str, Any]:
        return {
            "world_size": world_size(),
            "skipped_steps": self.num_skipped,
            "means": self.means.state(),
            "figures": self.figures,
        }

    def _restore(self, found: Checkpoint) -> None:
        self.step = found.step
        self.num_skipped = found.state["skipped_steps"]
        self.figures = found.state["figures"]
        self.means = Means(*found.state["means"])
        if rank() == 0:
            self.ema.load(found.folder / _EMA_FILE, self.device)

    def _say(self, text: str) -> None:
        print(f"{self.training.name}: {text}", flush=True)


class Means:
    """Means over steps and ranks, added up without waiting for the device."""

    def __init__(self, totals: dict[str, float] | None = None, count: int = 0) -> None:
        """Go on from totals kept in a checkpoint."""
        self.totals = dict(totals or {})
        self.count = count
        self._pending: dict[str, Tensor] = {}

    def add(self, parts: list[dict[str, Tensor]]) -> None:
        """Add one step's metrics, each the mean of its micro-batches."""
        self.count += 1
        for name in parts[0]:
            value = torch.stack([part[name].detach().double() for part in parts]).mean()
            self._pending[name] = self._pending[name] + value if name in self._pending else value

    def fold(self) -> None:
        """Bring every rank's sums together; a collective."""
        if not self._pending:
            return
        everyone = gathered({name: value.item() for name, value in self._pending.items()})
        for name in self._pending:
            share = math.fsum(part[name] for part in everyone) / len(everyone)
            self.totals[name] = self.totals.get(name, 0.0) + share
        self._pending = {}

    def take(self) -> dict[str, float]:
        """Return the means since the last call; empty when no step counted."""
        self.fold()
        means = {name: total / self.count for name, total in self.totals.items()} if self.count else {}
        self.totals, self.count = {}, 0
        return means

    def state(self) -> tuple[dict[str, float], int]:
        """Return what a checkpoint keeps, after fold."""
        return self.totals, self.count


class Clock:
    """Seconds of the steps since the last lap, and how many of them went into waiting for data."""

    def __init__(self) -> None:
        """Start the first lap."""
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def waiting(self, batches: Any) -> Any:
        """Yield from an iterator, counting the time it takes."""
        while True:
            before = time.perf_counter()
            item = next(batches, None)
            if item is None:
                return
            self._waited += time.perf_counter() - before
            self._steps += 1
            yield item

    def lap(self, global_batch: int) -> dict[str, float]:
        """Return the figures of the lap that ends now."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        figures = {
            "samples_per_s": self._steps * global_batch / seconds,
            "step_time_s": seconds / max(1, self._steps),
            "data_wait_share": self._waited / seconds,
        }
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0
        return figures


def _step_seed(seed: int, position: int) -> int:
    """Return torch's own seed for the rows from `position` on: dropout repeats after a restart."""
    return (seed * 0x9E3779B97F4A7C15 + position) % 2**63
