"""Calls on a cluster's workers whose results stay there: parts of a large set are exchanged without passing through the driver.

Results are Ray objects: they are moved to the node that needs them, written to disk if memory is full, and computed again if a
node is lost, because every function passed here depends only on its arguments and on committed tables.
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# Ray leaves types out of what it returns

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from corgi.flow import screen
from corgi.flow.executor import is_in_process
from corgi.flow.placement import selector

Ref = Any
"""The result of a call: a Ray object, or the value itself if work is done in this process."""
_RETRIES = 20
"""How often a call is repeated if a worker or its node was lost; it is not repeated after an exception of the function itself."""


@dataclass(frozen=True)
class Tasks:
    """Starts calls that each reserve this memory (bytes) and number of CPUs on a node."""

    memory: int = 0
    cpus: float = 1.0

    def start(self, function: Callable[..., Any], *arguments: Any) -> Ref:
        """Return the result of a call; arguments that are results of other calls are passed as their values."""
        return self._started(function, arguments, 1)

    def start_each(self, function: Callable[..., Sequence[Any]], count: int, *arguments: Any) -> list[Ref]:
        """Return the `count` results of a call one by one."""
        if count == 1:
            return [self._started(_only, (function, *arguments), 1)]
        return list(self._started(function, arguments, count))

    def _started(self, function: Callable[..., Any], arguments: Sequence[Any], count: int) -> Any:
        if is_in_process():
            return function(*arguments)
        import ray

        reserved: dict[str, Any] = {"memory": self.memory} if self.memory else {}
        remote: Any = ray.remote(
            **reserved,
            num_cpus=self.cpus,
            num_returns=count,
            max_retries=_RETRIES,
            label_selector=selector(0),
        )(function)
        return remote.remote(*arguments)


def _only(function: Callable[..., Sequence[Any]], *arguments: Any) -> Any:
    (result,) = function(*arguments)
    return result


def value_of(ref: Ref) -> Any:
    """Return the value of a result."""
    if is_in_process():
        return ref
    import ray

    return ray.get(ref) if isinstance(ref, ray.ObjectRef) else ref


def wait_for(refs: Sequence[Ref], label: str) -> None:
    """Wait until the calls are done, with progress on screen. The exception of a failed call is raised when its value is read."""
    if is_in_process() or not refs:
        return
    import ray

    left, total = list(refs), len(refs)
    with screen.bar(label, total, "task") as bar:
        while left:
            _, left = ray.wait(left, num_returns=min(len(left), 64), timeout=1.0, fetch_local=False)
            bar.reach(total - len(left))


def values_of(refs: Sequence[Ref], label: str) -> list[Any]:
    """Return the values of some results, which must be small; progress is shown."""
    wait_for(refs, label)
    return [value_of(ref) for ref in refs]
