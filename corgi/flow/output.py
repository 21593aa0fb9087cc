"""Handling of output that the reader has closed, as `| head` does: the command ends quietly."""

import os
import select
import signal
import sys
from collections.abc import Callable

CLOSED = 128 + signal.SIGPIPE
"""Exit code of a command whose output was closed early, as in shells."""
PROGRAM = "CORGI_PROGRAM"
"""Variable in which the command `corgi` passes its name to the script it starts; the script removes it from its environment."""


def program() -> str | None:
    """Return the name under which this script was started by `corgi`, such as `corgi run`; None if it was started directly."""
    return os.environ.pop(PROGRAM, None)


def until_closed(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; CLOSED if it wrote to an output that was closed."""
    try:
        try:
            return command()
        finally:
            _flush()
    except BrokenPipeError:
        closed = [number for number in (1, 2) if _is_closed(number)]
        if not closed:
            raise  # a pipe or socket of the work itself
        for number in closed:
            _discard(number)
        return CLOSED


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _is_closed(number: int) -> bool:
    """Return whether the reader of a file descriptor has gone."""
    watched = select.poll()
    watched.register(number, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


def _discard(number: int) -> None:
    """Discard what is still buffered for a file descriptor, also when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
