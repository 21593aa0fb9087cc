"""Values computed from the bytes of large files, kept from one command to the next while size and times are the same.

Hashing a list of 60 GB takes minutes. A later command of the same run uses the stored hash at once.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R", str, bool, tuple[str, bool])
Value = TypeVar("Value", str, bool, tuple[str, bool])

MIN_BYTES = 2**20
"""Size below which a file is read again by each command, bytes: there may be very many small files."""
_known: dict[str, tuple[tuple[int, ...], Any]] = {}
_caches: list[Callable[[], None]] = []


def remembered(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function whose arguments are a file's path, other texts, and last the file's facts (`storage.paths.facts_of`).

    The value is computed once per process for the same arguments, and not at all if an earlier command recorded it.
    """
    cached = functools.lru_cache(maxsize=65_536)(function)

    @functools.wraps(function)
    def found(*arguments: P.args, **named: P.kwargs) -> R:
        *names, facts = arguments
        assert isinstance(facts, tuple)
        key = " ".join([function.__name__, *map(str, names)])
        return recalled(key, facts, lambda: cached(*arguments, **named))

    _caches.append(cached.cache_clear)
    return found


def recalled(key: str, facts: tuple[int, ...], compute: Callable[[], Value]) -> Value:
    """Return the value under a key if it was computed from files with the same facts, else compute and keep it."""
    before = _known.get(key)
    if before is not None and before[0] == facts:
        return before[1]
    value = compute()
    if size_in(facts) >= MIN_BYTES:
        _known[key] = (facts, value)
    return value


def size_in(facts: tuple[int, ...]) -> int:
    """Return the size among a file's facts: on a disk they are device, inode, size and times, elsewhere size and time."""
    return facts[2 if len(facts) > 2 else 0]


def take_over(told: Mapping[str, Any]) -> None:
    """Take over values that an earlier command recorded."""
    for key, (facts, value) in told.items():
        _known.setdefault(key, (tuple(facts), tuple(value) if isinstance(value, list) else value))


def told() -> dict[str, list[list[int] | str | bool | tuple[str, bool]]]:
    """Return the known values of large files, as JSON."""
    return {key: [list(facts), value] for key, (facts, value) in sorted(_known.items())}


def forget() -> None:
    """Forget all values, as in a process that has just started."""
    _known.clear()
    for clear in _caches:
        clear()
