"""A stage that is made by a separate process, at the same time as stages that do not need it, on the same cluster."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from corgi.flow import screen
from corgi.settings import errors
from corgi.settings.errors import ClusterError, CorgiError

_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 60.0


class Aside:
    """The separate process. It commits the stage's tables and closes the stage; only the process that started it writes the run's own files."""

    def __init__(self, stage: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process so that the terminal's Ctrl-C does not reach it; `stop` forwards it once. The process's error is shown on this screen."""
        self._stage = stage
        self._process = subprocess.Popen(
            command, env={**os.environ, **environment}, stderr=screen.errors_fd(), start_new_session=True
        )

    def join(self) -> None:
        """Wait until the process ends.

        Raises:
            CorgiError: the process failed; the class is that of its exit code, and its own error is already on the screen.

        """
        code = self._process.wait()
        if code:
            kinds = {kind.exit_code: kind for kind in _kinds()}
            raise kinds.get(code, ClusterError)(
                f"{self._stage}, which ran at the same time as other stages, ended with exit code {code}; its own error is above; committed work is safe; run the same command to continue"
            )

    def wait(self) -> None:
        """Wait until the process ends in any way. The stage itself makes what remains and reports errors."""
        self._process.wait()

    def stop(self) -> None:
        """Stop the process as Ctrl-C does and wait for it; checkpoints and committed work are kept."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def end_with(parent: int) -> None:
    """Request a SIGTERM for this process when its parent, given by pid, ends in any way.

    Raises:
        ClusterError: the parent has already ended.

    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise ClusterError(
            "the command that started this stage is gone; committed work is safe; run the same command again"
        )


def _kinds() -> list[type[CorgiError]]:
    found = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CorgiError)
    ]
    return [kind for kind in found if kind is not CorgiError]
