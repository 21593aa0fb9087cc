"""Shapes and types are checked in tests (see `addopts`): what a wrong argument raises with and without the checker."""

from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping

REFUSED = (ValueError, TypeError)
"""jaxtyping's TypeCheckError, a TypeError, comes before a function's own ValueError."""


@contextmanager
def unchecked() -> Iterator[None]:
    """Leave shapes unchecked for a while: long learning loops ask the same question thousands of times."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
