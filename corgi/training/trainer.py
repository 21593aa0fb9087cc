"""The driver's side: one Ray Train worker group runs the unfinished trainings one after the other."""

import dataclasses
import json
import logging
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from corgi.flow.cluster import cause, connect, is_of_this_command
from corgi.flow.executor import is_in_process
from corgi.flow.placement import selector
from corgi.settings import errors
from corgi.settings.errors import ClusterError, CorgiError
from corgi.settings.recipe import Recipe
from corgi.settings.training import TrainingSettings
from corgi.tables.store import write_file
from corgi.tracking.environment import with_environment
from corgi.training.checkpoint import final_facts, final_weights, is_finished
from corgi.training.training import Training
from corgi.training.watch import watched

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.callback import RayTrainCallback

__all__ = ["final_facts", "final_weights", "train", "train_worker"]

_START_TIMEOUT_S = 600
_ELASTIC_START_TIMEOUT_S = 60
"""A lost node may still be counted when the workers are requested. After this time, training continues with those that have started."""
_CONTROLLER_FAILURES = 3
ALL_ENDED_S = 10.0
"""How long a worker that met a user's error waits for the others to meet one too, s; a restart of the group takes longer."""
_SET: dict[str, str] = {}
"""What `set_unless_given` has set in this process, by name."""


@dataclass(frozen=True)
class Job:
    """What every worker receives: the trainings, and the file in which it reports an error that a user can cause."""

    trainings: tuple[Training, ...]
    failure: str


def train(trainings: Sequence[Training], recipe: Recipe) -> None:
    """Run every training to its final weights; finished ones are skipped, and if all are finished Ray is not started.

    Consecutive trainings with the same worker settings share one worker group. If work is done in this process
    (`executor.in_process`), this process is the only worker.

    Raises:
        CorgiError: a worker raised it.
        ClusterError: the workers could not be started, or died more often than `max_failures`.

    """
    unfinished = [
        dataclasses.replace(training, tracking=with_environment(training.tracking))
        for training in trainings
        if not is_finished(training)
    ]
    if not unfinished:
        return
    if is_in_process():
        from corgi.training.alone import train_alone

        train_alone(unfinished)
        return
    connect(recipe)
    for _, group in groupby(unfinished, key=lambda training: _workers(training.settings)):
        _run(tuple(group))


def train_worker(config: "dict[str, Job]") -> None:
    """Run a job's trainings in one Ray Train worker.

    An error that a user can cause is written to a file, so that a restart does not repeat it. If every worker has met one, as with
    a loss that diverged, each returns and nothing is restarted. Otherwise the others may be waiting for this worker in a
    collective: it raises, and the restarted group ends at once. An error that may pass is not written: the restart continues
    from the last checkpoint.
    """
    job: Job = config["job"]
    failure = Path(job.failure)
    if failure.exists():
        return
    from corgi.training.loop import train_loop

    try:
        for training in job.trainings:
            train_loop(training, _report, _notice)
    except CorgiError as error:
        if error.may_pass:
            raise
        write_file(failure, json.dumps({"kind": type(error).__name__, "message": str(error)}).encode())
        if _all_ended(failure):
            return
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # the driver reports it in one line
        raise


def _all_ended(failure: Path) -> bool:
    """Write a file next to `failure`, since this worker ended with a user's error; return whether all workers did within `ALL_ENDED_S`."""
    from corgi.training.ranks import rank, world_size

    ended = [failure.with_name(f"ended-{number}") for number in range(world_size())]
    write_file(ended[rank()], b"")
    deadline = time.monotonic() + ALL_ENDED_S
    while not all(path.exists() for path in ended):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _report(metrics: dict[str, str | int]) -> None:
    """Report metrics, but no checkpoint, to Ray Train, and suppress the line that Ray logs for each report."""
    import ray.train
    from ray.train.v2._internal.execution import context

    context.logger.setLevel(logging.WARNING)
    ray.train.report(metrics)


def _notice() -> bool:
    """Return whether a node of this worker group is about to be preempted. Ray waits until all workers have called this and returns the same to all."""
    import ray.train

    return ray.train.get_preemption_info() is not None


def _run(trainings: tuple[Training, ...]) -> None:
    from ray.train.v2.api.exceptions import TrainingFailedError

    first = trainings[0]
    attempt = f"{first.name}-{uuid.uuid4().hex[:8]}"
    scratch = first.path / "ray"
    job = Job(trainings, str(scratch / attempt / "failure.json"))
    _check_room(first.settings)
    scratch.mkdir(parents=True, exist_ok=True)
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        with watched(trainings):
            _trainer(job, attempt, scratch).fit()
    except SystemExit as stop:  # on Ctrl-C Ray Train exits with code 0, as if it had succeeded
        raise KeyboardInterrupt from stop
    except TrainingFailedError as error:
        raise _explained(error, Path(job.failure), first) from error
    finally:  # otherwise Ray Train's handler would stay, and Ctrl-C would end later stages with code 0
        signal.signal(signal.SIGINT, interrupted)
    noted = _noted(Path(job.failure))
    if noted is not None:
        raise noted
    shutil.rmtree(scratch, ignore_errors=True)


def _trainer(job: Job, attempt: str, scratch: Path) -> "TorchTrainer":
    settings = job.trainings[0].settings
    start_s = _ELASTIC_START_TIMEOUT_S if settings.min_workers else _START_TIMEOUT_S
    set_unless_given("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", start_s)
    set_unless_given("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", 0.5)
    set_unless_given("RAY_TRAIN_ENABLE_PRINT_PATCH", 0)  # the patch prints every line twice
    set_unless_given("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", settings.collective_timeout_s)
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    class LocalTrainer(TorchTrainer):
        """Omits the placement group cleaner, which queries the dashboard and warns every second if, as in a local Ray, there is none."""

        def _create_default_callbacks(self) -> "list[RayTrainCallback]":
            callbacks = super()._create_default_callbacks()
            return [
                callback
                for callback in callbacks
                if type(callback).__name__ != "PlacementGroupCleanerCallback"
            ]

    trainer = LocalTrainer if is_of_this_command() else TorchTrainer
    workers = (settings.min_workers, settings.num_workers) if settings.min_workers else settings.num_workers
    resources = {"CPU": settings.cpus_per_worker, **({"GPU": 1.0} if settings.use_gpu else {})}
    return trainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(
            backend="nccl" if settings.use_gpu else "gloo", timeout_s=int(settings.collective_timeout_s)
        ),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=settings.use_gpu,
            resources_per_worker=resources,
            label_selector=selector(settings.use_gpu) or None,
        ),
        run_config=RunConfig(
            name=attempt,
            storage_path=str(scratch),
            logging_config=LoggingConfig(log_level="WARNING"),
            failure_config=FailureConfig(
                max_failures=settings.max_failures,
                controller_failure_limit=_CONTROLLER_FAILURES,
                max_preemption_failures=settings.max_preemptions,
            ),
        ),
    )


def set_unless_given(name: str, value: float, earlier: dict[str, str] = _SET) -> None:
    """Set a variable that Ray Train reads from the environment. A value that the user set is kept; one that an earlier call set is replaced.

    `earlier` maps names to the values that earlier calls set, and is updated.
    """
    if os.environ.get(name) in (None, earlier.get(name)):
        os.environ[name] = earlier[name] = str(value)


def _workers(settings: TrainingSettings) -> tuple[float, ...]:
    return (
        settings.num_workers,
        settings.min_workers,
        settings.cpus_per_worker,
        settings.use_gpu,
        settings.max_failures,
        settings.collective_timeout_s,
    )


def _check_room(settings: TrainingSettings) -> None:
    """Raise if this machine's own Ray can never provide the workers; a cluster may still add nodes."""
    import ray

    if not is_of_this_command():
        return
    available = ray.cluster_resources()
    workers = settings.min_workers or settings.num_workers
    needed = {"CPU": workers * settings.cpus_per_worker, "GPU": workers if settings.use_gpu else 0}
    change = {
        "CPU": "lower training.num_workers or cpus_per_worker",
        "GPU": "lower training.num_workers or set training.use_gpu=false",
    }
    for kind, amount in needed.items():
        if amount > available.get(kind, 0):
            raise ClusterError(
                f"training needs {amount:g} {kind}s for {workers} workers, but Ray has {available.get(kind, 0):g}; "
                f"committed work is safe; {change[kind]}"
            )


def _explained(error: BaseException, failure: Path, training: Training) -> CorgiError:
    known = _noted(failure) or cause(error)
    if known is not None:
        return known
    print(str(error), file=sys.stderr)
    error_lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ClusterError(
        f"{training.name}: the workers failed more than {training.settings.max_failures} times, last with {error_lines[-1][:200] if error_lines else type(error).__name__}; "
        f"checkpoints in {training.path} are safe; run the same command to continue"
    )


def _noted(failure: Path) -> CorgiError | None:
    if not failure.exists():
        return None
    noted = json.loads(failure.read_text())
    kind = getattr(errors, noted["kind"], CorgiError)
    return kind(noted["message"])
