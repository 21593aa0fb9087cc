"""Work in a background thread, one piece at a time, while training continues: it writes checkpoints that were copied beforehand."""

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Background:
    """Runs work in a thread and raises its errors in the caller's thread."""

    def __init__(self) -> None:
        """Start without any work."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], object]) -> None:
        """Wait until the previous piece of work has ended, then start this one.

        Raises:
            Exception: the previous piece of work raised it.

        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the work's error if it has failed; do not wait for it."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until the work has ended; raise its error if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def close(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` for the work and return whether it has ended. Errors are only logged, so that none hides the error that ended the training."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                _log.warning(
                    "a checkpoint was still being written after %.0f s; earlier ones are complete", timeout_s
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
