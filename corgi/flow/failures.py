"""Shards that could not be made: how often each is tried, and the one-line error that names them after all others are committed."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from corgi.flow.cluster import cause
from corgi.settings import errors
from corgi.settings.errors import ClusterError, CorgiError, InputError, SettingsError
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import ShardTask

TRIES_OF_A_WORKER = 2
"""How often a worker tries a shard; one that fails each time is tried once more by another worker."""
WAIT_S = 5.0
"""Wait before a worker tries a shard again, s: a server that is being restarted is often back by then."""
_NUM_SHOWN = 8
_AGAIN = "run the same command to try these again"


@dataclass(frozen=True)
class Failure:
    """Why a worker could not make a shard: the error's class and text, and the worker's node."""

    shard: str
    kind: str
    message: str
    node: str = ""

    @property
    def error(self) -> CorgiError | None:
        """Return the error as it was raised, if it is a CorgiError, whose message needs no traceback."""
        kind = getattr(errors, self.kind, None)
        return kind(self.message) if isinstance(kind, type) and issubclass(kind, CorgiError) else None

    @property
    def is_users(self) -> bool:
        """Return whether every try would fail in the same way, because settings or input are wrong."""
        return isinstance(self.error, SettingsError | InputError)

    @property
    def cause(self) -> str:
        """Return what is wrong, without the parts of the message about what is safe and what to do next."""
        if self.error is not None:
            return self.message.partition("; ")[0]
        return f"{self.kind}: {' '.join(self.message.split())[:200]}".removesuffix(": ")

    def to_dict(self) -> dict[str, str]:
        """Return the fields, to be passed on as JSON."""
        return asdict(self)


def lost(shard: str, times: int) -> Failure:
    """Return the failure of a shard whose worker died or was removed each time."""
    error = ClusterError(
        f"a worker was lost {times} times with the shard it made, as when memory runs out; what was made is committed; reserve more CPUs per worker, so that fewer share a node, or {_AGAIN}"
    )
    return Failure(shard, type(error).__name__, str(error))


def tried(
    make: Callable[[ShardTask], ShardManifest],
    task: ShardTask,
    tries: int,
    node: str = "",
    wait_s: float = WAIT_S,
) -> ShardManifest | Failure:
    """Return the manifest of a shard, made in one of several tries, or the failure of the last try.

    `wait_s` is the time between two tries. An error in settings or input ends the tries. The traceback is printed unless it is a CorgiError.
    """
    for number in range(1, tries + 1):
        try:
            return make(task)
        except Exception as error:
            known = cause(error)
            if known is None:
                traceback.print_exc()
            if number == tries or isinstance(known, SettingsError | InputError):
                found = known or error
                return Failure(task.shard, type(found).__name__, str(found), node)
            time.sleep(wait_s)
    raise ValueError(f"tries must be at least 1, not {tries}")


def explained(label: str, failures: Sequence[Failure], num_tasks: int, stopped: bool = False) -> CorgiError:
    """Return the one error that names the shards which could not be made, with their causes.

    `stopped` says that the other shards were not tried because too many failed in succession. If a stage has only one shard, its
    error is returned as it was raised. The class is that of the first error in settings or input, else of the first error.
    """
    first = min(failures, key=lambda failure: not failure.is_users)
    error = first.error
    if num_tasks == 1 and error is not None:
        return error
    advice = first.message.rpartition("; ")[2] if first.is_users else _AGAIN
    if error is None:
        advice = f"the log has the traceback; {_AGAIN}"
    whole = f"{label}: {len(failures)} of {num_tasks} shards could not be made{', and the rest was not tried' if stopped else ''}"
    kind = type(error) if error is not None else ClusterError
    return kind(f"{whole}: {_named(failures)}; what was made is committed; {advice}")


def _named(failures: Sequence[Failure]) -> str:
    """Return the shards by cause, the first few of each."""
    shards: dict[str, list[str]] = {}
    for failure in failures:
        shards.setdefault(failure.cause, []).append(failure.shard)
    told = [f"{_first(sorted(names))} ({cause})" for cause, names in shards.items()]
    more = f", and {len(told) - _NUM_SHOWN} further causes" if len(told) > _NUM_SHOWN else ""
    return ", ".join(told[:_NUM_SHOWN]) + more


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(names[:_NUM_SHOWN]) + more
