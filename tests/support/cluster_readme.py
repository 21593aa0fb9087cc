"""The commands of cluster/README.md, by section: tests run what users are told to run."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "cluster" / "README.md"


def commands(section: str, text: str | None = None) -> list[str]:
    """Return the indented lines of a section, in order."""
    told = README.read_text(encoding="utf-8") if text is None else text
    _, heading, rest = told.partition(f"\n## {section}\n")
    assert heading, f"no section {section}"
    body = rest.partition("\n## ")[0]
    return re.findall(r"^ {4}(\S.*)$", body, re.MULTILINE)


def command(section: str, start: str) -> str:
    """Return the only command of a section that starts like this."""
    [found] = [line for line in commands(section) if line.startswith(start)]
    return found
