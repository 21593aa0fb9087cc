"""One piece of work at a time in a thread, beside the training: the writing of a checkpoint that was copied before."""

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Background:
    """A thread's work, whose error is raised in the caller's thread."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], object]) -> None:
        """Start a piece of work as soon as the one before it has ended.

        Raises:
            Exception: what the one before it raised.

        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what the work raised, if it has ended so."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until the work has ended, and raise what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def close(self, timeout_s: float) -> bool:
        """Wait a bounded time on the way out of a training, where no error may hide the one that ends it; return whether it ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                _log.warning(
                    "a checkpoint was still being written after %.0f s; earlier ones are whole", timeout_s
                )
                return False
        if self._error is not None:
            _log.warning("the last checkpoint was not written: %s", self._error)
        return True

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
