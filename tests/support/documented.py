"""The commands that README and docs show, and whether the real parsers take them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
PAGES = (
    HOME / "README.md",
    HOME / "CONTRIBUTING.md",
    *sorted((HOME / "docs").glob("*.md")),
    HOME / "cluster" / "README.md",
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^    +(\S.*)$", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_OURS = re.compile(r"(?:\.venv/bin/)?(?:(?:corgi|make|python -m)\s|python pipelines/)")


@dataclass(frozen=True)
class Shown:
    """One command of a page."""

    page: str
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return the command as text."""
        return " ".join(self.words)


def commands() -> list[Shown]:
    """Return every command of ours in code blocks and inline code of the pages, once each."""
    found = (
        Shown(page.relative_to(HOME).as_posix(), words)
        for page in PAGES
        for words in _of(page.read_text(encoding="utf-8"))
    )
    return list(dict.fromkeys(found))


def _of(text: str) -> Iterator[tuple[str, ...]]:
    blocks = [body for kind, body in _FENCE.findall(text) if kind in ("", "sh", "bash")]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    lines += _INDENTED.findall(text) + _INLINE.findall(_FENCE.sub("", text))
    for line in lines:
        yield from _commands_of(line.strip().removeprefix("$ "))


def _commands_of(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the command of ours that a line is, without its comment and what a pipe does with its output."""
    line = line.rpartition(" -- ")[2] if line.startswith("ray job submit") else line
    if not _OURS.match(line):
        return
    words = shlex.split(line, comments=True)
    ends = [index for index, word in enumerate(words) if word in ("|", "&&", ">", "2>&1", ";")]
    yield tuple(words[: ends[0]] if ends else words)
