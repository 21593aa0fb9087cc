"""Retries of reads, with growing waits, while a disk or an object store responds with a transient error.

Writes are not repeated here: fsync may succeed the second time although the bytes are lost. A shard whose write failed is made
again completely (corgi/flow/failures.py).
"""

import errno
import random
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

PASSING = frozenset(
    {
        errno.EIO,
        errno.ESTALE,  # NFS: the server was restarted, or the file was replaced on another node
        errno.EREMOTEIO,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ENOTCONN,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)
"""Errors that may not occur again if the request is repeated."""
ATTEMPTS = 5
FIRST_WAIT_S = 0.25
LONGEST_S = 60.0
"""Time after which no request is repeated, s: obstore itself repeats requests for this time before it gives up."""


def is_passing(error: OSError) -> bool:
    """Return whether the same request may succeed later: the network or a server failed, not the request."""
    return error.errno in PASSING


def patient(call: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Return a read that is repeated while it fails with a transient error; the last error is raised.

    It is called up to ATTEMPTS times. The wait doubles before each call, with a random factor of 0.5 to 1.5, so that the
    workers of a cluster do not all repeat their requests at the same time.
    """

    @wraps(call)
    def repeated(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        started = time.monotonic()
        for attempt in range(ATTEMPTS - 1):
            try:
                return call(*arguments, **named)
            except OSError as error:
                if not is_passing(error) or time.monotonic() - started > LONGEST_S:
                    raise
                time.sleep(FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
        return call(*arguments, **named)

    return repeated
