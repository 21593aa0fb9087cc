"""Stages made of functions: stand-ins for real ones, and toys."""

from collections.abc import Callable
from typing import Any

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.tables.store import ShardTask


def nothing(context: Context) -> list[ShardTask]:
    """Commit nothing."""
    return []


def stage(
    name: str,
    run: Callable[[Context], list[ShardTask]] = nothing,
    inputs: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    kind: type[Stage] = Stage,
    **members: Any,
) -> Stage:
    """Return a stage whose methods are these functions, and whose other attributes are these values."""
    given = {name: staticmethod(value) if callable(value) else value for name, value in members.items()}
    made = {"name": name, "inputs": inputs, "settings": settings, "run": staticmethod(run), **given}
    return type(name, (kind,), made)()
