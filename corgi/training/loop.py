"""The training loop of every model: what a worker does from the first step, or the newest checkpoint, to the final weights."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn
from torch.profiler import record_function

from corgi.feeding.feed import Batch, Feed
from corgi.feeding.noise import Noise
from corgi.feeding.order import Order, lanes_for
from corgi.settings.errors import InputError
from corgi.tracking import tracker as tracking
from corgi.tracking.tracker import VAL, val_figures
from corgi.training.checkpoint import Checkpoint, Checkpoints, finish, is_finished
from corgi.training.ema import EarlierEma, Ema, state_of, with_second
from corgi.training.engine import (
    backward,
    build_engine,
    learning_rate,
    load_engine,
    micro_batches,
    module_of,
    outcome,
    prepare_process,
    set_lr,
)
from corgi.training.masters import frozen, masters, shapes
from corgi.training.notice import Agreement
from corgi.training.objective import AveragesTwice, Objective, Shows
from corgi.training.probe import Probe
from corgi.training.profile import profiled
from corgi.training.progress import Clock, Means, memory_gib, peak_tflops
from corgi.training.ranks import barrier, copy_from_first, from_first, rank, world_size
from corgi.training.shared_folder import check_shared
from corgi.training.snapshot import HostBuffers, snapshot
from corgi.training.training import Training
from corgi.training.universal import converted, needs_conversion
from corgi.training.versions import check_versions

Report = Callable[[dict[str, Any]], None]
_EMA_FILE, _SECOND_FILE = "ema.safetensors", "ema2.safetensors"
NOTICE_EVERY_S = 5.0
"""Interval at which rank 0 asks for a check whether a node is about to be preempted."""
_UPLOAD_BEFORE_LEAVING_S = 100.0


def train_loop(
    training: Training, report: Report = lambda _: None, notice: Callable[[], bool] = lambda: False
) -> None:
    """Train to the end, from the newest complete checkpoint if there is one; a collective of an initialised process group.

    `report` is called on every rank at each checkpoint. `notice` returns whether a node is about to be preempted, and a checkpoint
    is then saved at once. It is called on every rank at the same steps and must return the same on each.

    Raises:
        InputError: the loss stayed non-finite for `max_nonfinite_steps` steps.
        StorageError: the workers do not share the training's folder.
        ClusterError: the workers do not have the same torch.

    """
    if from_first(is_finished(training) if rank() == 0 else None):
        return
    prepare_process(training.settings)
    check_versions()
    check_shared(training.path)
    loop = _Loop(training, report, notice)
    try:
        loop.run()
        loop.finish()
    finally:
        loop.close()


class _Taken(NamedTuple):
    """A step that was taken: its number from 0, the metrics and weight of each micro-batch, and a function that returns whether it was skipped."""

    step: int
    metrics: list[dict[str, torch.Tensor]]
    weights: list[float]
    is_skipped: Callable[[], bool]


class _Loop:
    """The state of one training in one worker."""

    def __init__(self, training: Training, report: Report, notice: Callable[[], bool]) -> None:
        self.training = training
        self.settings = training.settings
        self.report, self.notice = report, notice
        self.device = (
            torch.device("cuda", torch.cuda.current_device())
            if self.settings.use_gpu
            else torch.device("cpu")
        )
        self.objective: Objective = training.build()
        torch.manual_seed(training.seed)
        model = self.objective.model().to(self.device)
        self.objective.place(self.device)
        rows = self.objective.rows()
        lanes = lanes_for(self.settings.global_batch, self.settings.lanes)
        order = Order(rows.counts, training.seed, lanes, self.settings.shuffle_window)
        self.probe = Probe(self.objective, rows, training.seed, self.device)
        self.flops = self.probe.train_flops(model)
        worker = rank(), world_size()
        self.feed = Feed(rows, order, self.settings.global_batch, worker, pin=self.settings.use_gpu)
        self.checkpoints, self._memory = Checkpoints(training), HostBuffers()
        self.num_micro = micro_batches(self.settings)
        self.step = self.num_skipped = 0
        self.means = Means()
        self.figures: dict[int, dict[str, float]] = {}
        self.tracker: tracking.Tracker | None = None
        self._averaged: nn.Module | None = None
        self._saved_step = 0
        self._unsettled: _Taken | None = None
        self._noticed = False
        self._resume(model)

    def _resume(self, model: nn.Module) -> None:
        """Build the engine, restore the newest complete checkpoint if there is one, and open the metric files to continue after its step."""
        checkpoint = self.checkpoints.newest()
        universal = checkpoint is not None and needs_conversion(checkpoint, self.settings)
        self._frozen = frozen(model)
        self.engine = build_engine(model, self.settings, universal)
        if checkpoint is not None:
            with converted(checkpoint, self.settings) as folder:
                load_engine(self.engine, folder, universal)
        stretches, all_shapes = masters(self.engine), shapes(model)
        self.ema = Ema(stretches, all_shapes, self.settings.ema_decay, self.device)
        second = self.objective.second_average() if isinstance(self.objective, AveragesTwice) else None
        self.averages = {_EMA_FILE: self.ema}
        if second is not None:
            self.averages[_SECOND_FILE] = EarlierEma(stretches, all_shapes, second, self.device)
        if checkpoint is not None:
            self._restore(checkpoint)
            self.probe.compare(self.engine, checkpoint, self.settings.precision)
        if rank() == 0:
            self.tracker = tracking.Tracker(self.training.tracked, self.step)
            how = " after conversion" if universal else ""
            self._say(f"from step {self.step} of {self.settings.num_steps}{how}, {world_size()} workers")
        self.figures = from_first(val_figures(self.training.metrics_file) if rank() == 0 else {})

    def run(self) -> None:
        """Run the remaining steps, after the evaluation that is still due if an earlier attempt died before it."""
        if self.step and self._owes_evaluation():
            self._evaluate()
        clock = Clock()
        agreement = Agreement(self.settings.checkpoint_every_minutes * 60, NOTICE_EVERY_S)
        batches = self.feed.batches(self.step, self.settings.num_steps)
        try:
            with profiled(self.training, self.settings.profile_steps, self.step) as advance:
                for batch in clock.waiting(batches):
                    self._take(batch.to(self.device))
                    clock.stepped()
                    self.step += 1
                    self._after_step(clock, agreement)
                    advance()
        finally:
            batches.close()

    def finish(self) -> None:
        """Commit the final weights, which the last step evaluated, after its checkpoint has been committed."""
        self.checkpoints.wait()
        wholes = [{**self._frozen, **average.whole()} for average in self.averages.values()]
        if rank() == 0:
            figures = self.figures.get(self.step, {})
            facts = {"steps": self.step, "skipped_steps": self.num_skipped, "val": figures}
            weights = with_second(*(state_of(whole, module_of(self.engine)) for whole in wholes))
            finish(self.training, weights, facts)
            self._say("done" + "".join(f", {name} {value:.4g}" for name, value in figures.items()))
        barrier()

    def close(self) -> None:
        """Close the metric files and release the engine's memory."""
        if self.tracker is not None:
            self.tracker.finish()
        self.checkpoints.close()
        self.feed.close()
        self.engine.destroy()

    def _take(self, batch: Batch) -> None:
        """Take one optimiser step, or skip it on all ranks if loss or gradients are not finite.

        Whether the previous step was skipped is read only after this step's backward pass is queued, so that the device never waits for the host.
        """
        set_lr(self.engine, learning_rate(self.settings, batch.step))
        taken, weights = [], []
        for part in batch.split(self.num_micro):
            weights.append(len(part.positions) * self.num_micro * world_size() / self.settings.global_batch)
            torch.manual_seed(_step_seed(self.training.seed, int(part.positions[0])))
            noise = Noise(self.training.seed, part.positions, self.device)
            with record_function("corgi/forward"):
                loss, metrics = self.objective.loss(self.engine, part.columns, noise)
            with record_function("corgi/backward"):
                backward(self.engine, loss, weights[-1])
            self._settle()
            with record_function("corgi/optimizer"):
                self.engine.step()
            taken.append({"loss": loss, **metrics})
        self._unsettled = _Taken(self.step, taken, weights, outcome(self.engine))

    def _settle(self) -> None:
        """Count the last step and average its weights, or count its skip."""
        if self._unsettled is None:
            return
        (step, taken, weights, is_skipped), self._unsettled = self._unsettled, None
        if is_skipped():
            self._skip(step)
            return
        self.means.add(taken, weights)
        with record_function("corgi/average"):
            for average in self.averages.values():
                average.update(step - self.num_skipped)

    def _skip(self, step: int) -> None:
        self.num_skipped += 1
        if rank() == 0:
            self._say(
                f"step {step + 1}: loss or gradient is not finite, step skipped ({self.num_skipped} so far)"
            )
        if self.num_skipped >= self.settings.max_nonfinite_steps:
            raise InputError(
                f"{self.training.name}: {self.num_skipped} steps had a non-finite loss or gradient, the last at step {step + 1}; "
                "checkpoints before it are safe; lower training.lr or check the inputs"
            )

    def _after_step(self, clock: Clock, agreement: Agreement) -> None:
        settings, last = self.settings, self.step == self.settings.num_steps
        if last or self.step % settings.log_every_steps == 0:
            self._log(clock)
        due, look = agreement.next()
        leaving = look and not self._noticed and self.notice()
        if last or due or leaving or self.step % settings.checkpoint_every_steps == 0:
            started = time.perf_counter()
            self._save()
            agreement.saved()
            clock.stalled(time.perf_counter() - started)
        self.checkpoints.check()
        if leaving:
            self._noticed = True
            self.checkpoints.wait()
            if rank() == 0:
                self._say(f"a node is about to be preempted: checkpoint at step {self.step}")
            if self.checkpoints.uploader is not None:
                self.checkpoints.uploader.wait(_UPLOAD_BEFORE_LEAVING_S)
        if self._owes_evaluation():  # after the checkpoint, so that a training that dies here resumes from it
            self._evaluate()

    def _owes_evaluation(self) -> bool:
        every, last = self.settings.eval_every_steps, self.step == self.settings.num_steps
        return (last or bool(every and self.step % every == 0)) and self.step not in self.figures

    def _log(self, clock: Clock) -> None:
        self._settle()
        values: dict[str, float | None] = {"loss": None, **self.means.take()}
        values["lr"] = learning_rate(self.settings, self.step - 1)
        values["grad_norm"] = float(self.engine.get_global_grad_norm() or 0.0)
        values["skipped_steps"] = self.num_skipped
        timings = self._hardware(clock.lap(self.settings.global_batch))
        if self.tracker is not None:
            self.tracker.log(self.step, values, timings)
            shown = "-" if values["loss"] is None else f"{values['loss']:.4f}"
            rate = f"{timings['samples_per_s']:.0f} samples/s, waits {timings['data_wait_share']:.0%}"
            self._say(
                f"step {self.step}/{self.settings.num_steps}, loss {shown}, lr {values['lr']:.2e}, {rate}"
            )

    def _hardware(self, lap: dict[str, float]) -> dict[str, float]:
        """Add memory, TFLOP/s per worker and, where the device's peak is known, model FLOP utilisation."""
        tflops = lap["samples_per_s"] * self.flops / world_size() / 1e12
        peak = peak_tflops(self.settings.peak_tflops, self.device)
        utilisation = {"mfu": tflops / peak} if peak else {}
        return {**lap, "memory_gib": memory_gib(self.device), "tflops_per_worker": tflops, **utilisation}

    def _evaluate(self) -> None:
        """Evaluate the averaged weights on all ranks, each on its share of the val rows."""
        self._settle()
        figures = self.figures[self.step] = from_first(self._figures())
        if self.tracker is not None and figures:
            self.tracker.log(self.step, {f"{VAL}{name}": value for name, value in figures.items()})
            self._show(self.tracker)
            if self._saved_step == self.step:
                self.tracker.commit()

    @torch.no_grad()
    @torch.random.fork_rng()
    def _figures(self) -> dict[str, float]:
        if self._averaged is None:
            self._averaged = self.objective.model().to(self.device).eval()
        averages = {**self._frozen, **self.ema.whole()}
        if rank() == 0:
            self._averaged.load_state_dict(state_of(averages, module_of(self.engine)))
        copy_from_first(self._averaged)
        return {name: float(value) for name, value in self.objective.evaluate(self._averaged).items()}

    @torch.no_grad()
    @torch.random.fork_rng()
    def _show(self, tracker: tracking.Tracker) -> None:
        if isinstance(self.objective, Shows) and self._averaged is not None:
            tracker.show(self.step, self.objective.show(self._averaged))

    def _save(self) -> None:
        """Copy the state of this step; a thread writes it while the training continues."""
        self._settle()
        self.means.fold()
        if self.tracker is not None:
            self.tracker.commit()
        self.checkpoints.wait()  # its buffers are reused
        self._memory.reclaim()
        copied = snapshot(self.engine, self.checkpoints.folder_of(self.step), self._memory)
        copies = {name: average.copied(self._memory) for name, average in self.averages.items()}

        def write(folder: Path) -> None:
            copied.write()
            for name, averages in copies.items():
                if whole := averages.whole(torch.device("cpu"), self.checkpoints.group):
                    save_file(whole, folder / name)

        self.checkpoints.begin(self.step, self._state(), write)
        self._saved_step = self.step
        self.report({"name": self.training.name, "step": self.step})

    def _state(self) -> dict[str, object]:
        return {
            "world_size": world_size(),
            "skipped_steps": self.num_skipped,
            "means": self.means.state(),
            "probe": self.probe.loss(self.engine),
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.step = self._saved_step = checkpoint.step
        self.num_skipped = checkpoint.state["skipped_steps"]
        self.means = Means(*checkpoint.state["means"])
        for name, average in self.averages.items():
            average.load(checkpoint.folder / name)

    def _say(self, text: str) -> None:
        print(f"{self.training.name}: {text}", flush=True)


def _step_seed(seed: int, position: int) -> int:
    """Return the seed of torch's generator for the rows from `position` on, so that dropout is the same after a restart."""
    return (seed * 0x9E3779B97F4A7C15 + position) % 2**63
