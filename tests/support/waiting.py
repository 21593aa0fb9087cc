"""Waits that end as soon as what they wait for holds, and fail only where it never will."""

import time
from collections.abc import Callable

PATIENCE_S = 150.0
"""Longer than a busy machine takes for anything a test waits for, shorter than the limit of a test: the wait itself is named."""


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Return once `holds()` is true.

    Raises:
        AssertionError: it is not after PATIENCE_S.

    """
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.02)
