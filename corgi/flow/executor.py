"""Whether the work of a stage is done by Ray's workers or in this process."""

# pyright: reportUnknownVariableType=false
# Ray leaves types out of what it returns

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from corgi.flow.placement import selector

P = ParamSpec("P")
R = TypeVar("R")
_in_process: ContextVar[bool] = ContextVar("in_process", default=False)


@contextmanager
def in_process() -> Generator[None]:
    """Do the work of stages in this process, one call after the other, without Ray: for tests and debuggers.

    The code and the resulting bytes are the same. A training has one worker, whatever its settings.
    """
    token = _in_process.set(True)
    try:
        yield
    finally:
        _in_process.reset(token)


def is_in_process() -> bool:
    """Return whether work is done in this process."""
    return _in_process.get()


def call(function: Callable[P, R], cpus: float, gpus: float, *args: P.args, **kwargs: P.kwargs) -> R:
    """Return `function(*args, **kwargs)`, computed on a worker that reserves these CPUs and GPUs."""
    if is_in_process():
        return function(*args, **kwargs)
    import ray

    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, label_selector=selector(gpus))(function)
    result: R = ray.get(task.remote(*args, **kwargs))
    return result
