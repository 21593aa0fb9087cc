"""A trace of a few steps by torch's profiler, if the settings ask for one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from corgi.training.ranks import rank
from corgi.training.training import Training

_FIRST = 2


@contextmanager
def profiled(training: Training, num_steps: int, step: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each step; `profile/step-N.json` (for chrome://tracing or Perfetto) contains the traced steps."""
    if not num_steps or rank() != 0:
        yield lambda: None
        return
    from torch.profiler import profile, schedule

    folder = training.path / "profile"
    folder.mkdir(parents=True, exist_ok=True)

    def written(done: profile) -> None:
        done.export_chrome_trace(str(folder / f"step-{step + _FIRST:09d}.json"))

    plan = schedule(skip_first=_FIRST - 1, wait=0, warmup=1, active=num_steps, repeat=1)
    with profile(schedule=plan, on_trace_ready=written, profile_memory=True) as tracer:
        yield tracer.step
