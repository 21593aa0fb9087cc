"""The steps of a Dockerfile with its arguments and variables filled in; only what cluster/Dockerfile uses is known."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_KNOWN = ("FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "CMD")


@dataclass(frozen=True)
class Step:
    """One instruction: what it says, and the folder, user and variables that hold for it."""

    kind: str
    text: str
    folder: str
    user: str
    variables: Mapping[str, str]


def steps(path: Path, arguments: Mapping[str, str] | None = None) -> Iterator[Step]:
    """Yield the instructions in order; `arguments` are those of `docker build --build-arg`.

    Raises:
        ValueError: an instruction is not known here.

    """
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    folder, user, variables = "/", "root", dict[str, str]()
    for line in filter(None, re.sub(r"\\\n\s*", "", text).splitlines()):
        kind, _, rest = line.partition(" ")
        if kind not in _KNOWN:
            raise ValueError(f"{path}: {kind} is not known here")
        if kind == "ARG":
            [(name, default)] = _pairs(rest)
            variables[name] = (arguments or {}).get(name, default)
        elif kind == "ENV":
            variables.update(_pairs(rest))
        elif kind == "WORKDIR":
            folder = rest
        elif kind == "USER":
            user = rest
        yield Step(kind, rest, folder, user, dict(variables))


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return NAME=value pairs; a name without a value has an empty one."""
    return [(name, value) for name, _, value in (word.partition("=") for word in shlex.split(text))]
