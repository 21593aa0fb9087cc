"""The screen of a run: one line per stage, one progress bar, errors. Everything else goes to a log file.

While a run is executed, the file descriptors 1 and 2 of its process go to the log, and so do those of its child
processes: everything that a library, a Ray worker or a child prints is in the log at once, even if the process is killed a
moment later. The screen is written through duplicates of the original descriptors.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn, Protocol, TextIO

from tqdm import tqdm

from corgi.flow import metrics
from corgi.storage.errors import storage_full

FIRST_LINE_S, LONGEST_S = 10.0, 300.0
"""Without a terminal: seconds until a bar's first plain line; the wait doubles for each later line, up to the second number."""
_REDRAW_S = 0.5
_ERASE = "\r\x1b[K"
"""Moves to the start of the terminal's line and clears it."""


class Bar(Protocol):
    """The progress of one piece of work."""

    def reach(self, done: int, note: str = "") -> None:
        """Show that `done` of the total are done; `note` describes the work so far."""
        ...


class Screen:
    """The terminal or file on which lines and the one bar are shown."""

    def __init__(self, out: TextIO, errors: TextIO, log: TextIO | None = None) -> None:
        """Write lines to `out`, and also to `log` if there is one; a bar is drawn on `errors` if that is a terminal."""
        self._out, self.errors, self._log = out, errors, log
        self._started = time.monotonic()
        self._lock = threading.RLock()
        self._drawn: "tqdm[NoReturn] | None" = None
        self._begun = False

    def say(self, text: str) -> None:
        """Show one line with the time since the start before it."""
        self.line(self._timed(text))

    def begin(self, text: str) -> None:
        """Show what begins: on a terminal until the next line or bar replaces it, elsewhere as a line."""
        if not self._out.isatty():
            self.say(text)
            return
        with self._lock:
            self._erase()
            self._write(self._out, self._timed(text), end="")
            self._write(self._log, self._timed(text))
            self._begun = True

    def line(self, text: str) -> None:
        """Show one line as it is. If the screen is gone, as with a closed pipe, the work continues, and the log has every line."""
        with self._lock:
            if self._drawn is not None:
                self._drawn.clear()
            self._erase()
            self._write(self._out, text)
            self._write(self._log, text)
            if self._drawn is not None:
                self._drawn.refresh()

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Generator[Bar]:
        """Show the progress of one piece of work: drawn on a terminal, plain lines at a bounded rate elsewhere."""
        if not self.errors.isatty():
            yield _Lines(self.say, label, total, unit)
            return
        self._erase()
        drawn: tqdm[NoReturn] = tqdm(
            total=total,
            desc=label,
            unit=unit,
            file=self.errors,
            mininterval=_REDRAW_S,
            leave=False,
            dynamic_ncols=True,
        )
        before, self._drawn = self._drawn, drawn
        try:
            yield _Drawn(drawn)
        finally:
            self._drawn = before
            drawn.close()

    def close(self) -> None:
        """Leave the cursor at the start of an empty line."""
        self._erase()

    def _timed(self, text: str) -> str:
        return f"[{time.monotonic() - self._started:6.1f} s] {text}"

    def _erase(self) -> None:
        """Erase what `begin` wrote on the terminal's last line."""
        if self._begun:
            self._write(self._out, _ERASE, end="")
            self._begun = False

    def _write(self, stream: TextIO | None, text: str, end: str = "\n") -> None:
        if stream is not None:
            with suppress(OSError):
                print(text, file=stream, end=end, flush=True)


class _Drawn:
    def __init__(self, drawn: "tqdm[NoReturn]") -> None:
        self._drawn = drawn

    def reach(self, done: int, note: str = "") -> None:
        self._drawn.set_postfix_str(note, refresh=False)
        self._drawn.update(done - self._drawn.n)


class _Lines:
    def __init__(self, say: Callable[[str], None], label: str, total: int, unit: str) -> None:
        self._say, self._label, self._total, self._unit = say, label, total, unit
        self._wait_s = FIRST_LINE_S
        self._due = time.monotonic() + self._wait_s

    def reach(self, done: int, note: str = "") -> None:
        if time.monotonic() < self._due:
            return
        self._wait_s = min(2 * self._wait_s, LONGEST_S)
        self._due = time.monotonic() + self._wait_s
        if not done:
            return  # the line that the stage runs has already said so
        told = f", {note}" if note else ""
        self._say(f"{self._label}: {done} of {self._total} {self._unit}s{told}")


class _Noted:
    def __init__(self, shown: Bar, label: str, total: int, unit: str) -> None:
        self._shown, self._label, self._total, self._unit = shown, label, total, unit

    def reach(self, done: int, note: str = "") -> None:
        metrics.note_work(self._label, self._unit, done, self._total)
        self._shown.reach(done, note)


_open: list[Screen] = []


def current() -> Screen:
    """Return the screen of the running command; without one, a screen on this process's own output."""
    return _open[-1] if _open else Screen(sys.stdout, sys.stderr)


@contextmanager
def bar(label: str, total: int, unit: str) -> Generator[Bar]:
    """Show the progress of one piece of work on the current screen, and record it for the cluster's metrics."""
    metrics.note_work(label, unit, 0, total)
    with current().bar(label, total, unit) as shown:
        yield _Noted(shown, label, total, unit)


def errors_fd() -> int | None:
    """Return the descriptor to which a child must write its errors; None if its own is the right one."""
    if not _open:
        return None
    with suppress(OSError, ValueError):
        return _open[-1].errors.fileno()
    return None


@contextmanager
def opened(log: Path) -> Generator[Screen]:
    """Send everything except the screen's own lines to a log file while the block runs.

    Raises:
        StorageError: the log cannot be written.

    """
    _open_standard()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        sink = log.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        storage_full(error, log)
    with sink, _kept(sys.stdout) as out, _kept(sys.stderr) as errors, _redirected(sink.fileno(), (1, 2)):
        _open.append(Screen(out, errors, sink))
        try:
            yield _open[-1]
        except BaseException:
            traceback.print_exc(file=sink)
            raise
        finally:
            _open.pop().close()


@contextmanager
def beside() -> Generator[Screen]:
    """Open the screen of a child whose standard output is already its parent's log: its errors go there too."""
    with _kept(sys.stdout) as log, _redirected(1, (2,)):
        _open.append(Screen(log, log))
        try:
            yield _open[-1]
        finally:
            _open.pop()


@contextmanager
def _kept(stream: TextIO | None) -> Generator[TextIO]:
    """Yield a duplicate of a stream; the stream itself if it has no descriptor (a test's capture)."""
    with ExitStack() as held:
        if stream is None:
            kept: TextIO = held.enter_context(open(os.devnull, "w"))
        else:
            kept = stream
            with suppress(OSError, ValueError):
                number = os.dup(stream.fileno())
                kept = held.enter_context(
                    open(number, "w", buffering=1, encoding=stream.encoding, errors="replace")
                )
        yield kept


@contextmanager
def _redirected(target: int, numbers: tuple[int, ...]) -> Generator[None]:
    """Redirect descriptors to `target` while the block runs."""
    _flush()
    saved = {number: os.dup(number) for number in numbers}
    for number in numbers:
        os.dup2(target, number)
    try:
        yield
    finally:
        _flush()
        for number, before in saved.items():
            os.dup2(before, number)
            os.close(before)


def _open_standard() -> None:
    """Open standard descriptors that the parent process has closed, so that no other file gets their numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)


def _flush() -> None:
    """Flush Python's buffers, and from now on use line buffering, since the process may be killed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
            getattr(stream, "reconfigure")(line_buffering=True)  # noqa: B009
