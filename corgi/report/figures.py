"""Nested numbers as tables: shows any metrics, statistics or facts of a stage without knowledge of their meaning."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from corgi.report import charts

_MAX_LISTED = 4
_UNITS = {"s": "s", "ms": "ms", "px": "px", "mib": "MiB", "gib": "GiB", "gb": "GB", "bytes": "bytes"}
"""Units that may end a key, and how they are written."""
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table: `keys` are the titles of its leading columns, `columns` those of the others; each row is (key cells, cells).

    A key cell that repeats the one above is None. `depth` is 0 for a stage's own table, 1 for a part of it, and so on.
    """

    heading: str
    depth: int
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str | None, ...], tuple[str, ...]], ...]


def tables(values: Mapping[str, object], digits: str = "", heading: str = "", depth: int = 0) -> list[Table]:
    """Return the tables that show nested numbers; entries named `notes` are left to the function `notes`.

    Plain entries form a table of two columns; groups with common columns share one table, up to two levels deep;
    any other group gets a sub-heading. `digits` is the title of a column of keys that are whole numbers, such as sampler steps.
    """
    shown = {
        name: value for name, value in values.items() if not _is_notes(name, value) and not is_internal(value)
    }
    plain = {name: value for name, value in shown.items() if not isinstance(value, Mapping)}
    groups = {name: _sorted(value) for name, value in shown.items() if isinstance(value, Mapping) and value}
    flat = {name: group for name, group in groups.items() if _level(group) == 1}
    deep = {name: group for name, group in groups.items() if _level(group) == 2}
    result = [_pairs(plain, heading, depth)] if plain else []
    for rows in _alike({(name,): group for name, group in flat.items()}):
        if len(rows) > 1:
            result.append(_gathered(rows, digits, "" if result else heading, depth))
            groups = {name: group for name, group in groups.items() if (name,) not in rows}
    if depth and len(deep) > 1:
        groups = {name: group for name, group in groups.items() if name not in deep}
        for rows in _alike(
            {(a, b): row for a, group in deep.items() for b, row in group.items() if isinstance(row, Mapping)}
        ):
            result.append(_gathered(rows, digits, "" if result else heading, depth))
    if heading and not result:
        result.append(Table(heading, depth, (), (), ()))
    for name, group in groups.items():
        result += tables(group, digits, _title(name), depth + 1)
    return result


def notes(values: object) -> list[str]:
    """Return every note among nested values, in order, once each."""
    if not isinstance(values, Mapping):
        return []
    texts: dict[str, None] = {}
    for name, value in values.items():
        own = ([value] if isinstance(value, str) else value) if _is_notes(name, value) else notes(value)
        texts.update(dict.fromkeys(map(str, own)))
    return list(texts)


def is_internal(value: object) -> bool:
    """Return whether a value is a digest or a list of digests, which are meant for programs only."""
    if isinstance(value, str):
        return _DIGEST.fullmatch(value) is not None
    return isinstance(value, (list, tuple)) and bool(value) and all(map(is_internal, value))


def label(name: str) -> str:
    """Return a key as words; a unit at its end follows after a comma."""
    words = " ".join(str(name).replace("_", " ").replace("/", " ").split())
    text, _, unit = words.rpartition(" ")
    return f"{text}, {_UNITS[unit]}" if text and unit in _UNITS else words


def cell(value: object) -> str:
    """Format a value: a number, a text, a short list in full, a long list of numbers by its length and range."""
    if value is None:
        return _NOTHING
    if isinstance(value, Real):
        return charts.number(float(value) if not isinstance(value, (int, bool)) else value)
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return _listed(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _title(name: str) -> str:
    text = label(name)
    return text[:1].upper() + text[1:]


def _listed(values: Sequence[object]) -> str:
    numbers = [float(value) for value in values if isinstance(value, Real)]
    if len(values) <= _MAX_LISTED or len(numbers) < len(values):
        return ", ".join(cell(value) for value in values) if values else _NOTHING
    return f"{len(values):,} values, {charts.number(min(numbers))} to {charts.number(max(numbers))}"


def _is_notes(name: str, value: object) -> bool:
    return name in ("notes", "note") and isinstance(value, (str, list, tuple))


def _level(group: Mapping[str, object]) -> int:
    """Return 1 for a group of plain values, 2 for a group of such groups, 0 for anything else."""
    inner = [value for value in group.values() if isinstance(value, Mapping)]
    if any(_is_notes(name, value) for name, value in group.items()):
        return 0
    if not inner:
        return 1
    return 2 if len(inner) == len(group) and all(_level(value) == 1 for value in inner) else 0


def _alike(
    rows: Mapping[tuple[str, ...], Mapping[str, object]],
) -> list[dict[tuple[str, ...], Mapping[str, object]]]:
    """Divide the rows into parts, so that each row has a column in common with the first of its part."""
    parts: list[dict[tuple[str, ...], Mapping[str, Any]]] = []
    for names, row in rows.items():
        match = next((part for part in parts if set(next(iter(part.values()))) & set(row)), None)
        if match is None:
            parts.append({names: row})
        else:
            match[names] = row
    return parts


def _sorted(group: Mapping[str, object]) -> dict[str, object]:
    return {name: group[name] for name in (sorted(group, key=int) if _are_whole(group) else group)}


def _are_whole(names: Iterable[str]) -> bool:
    return all(str(name).isdecimal() for name in names)


def _pairs(values: Mapping[str, object], heading: str, depth: int) -> Table:
    return Table(
        heading,
        depth,
        ("",),
        ("",),
        tuple(((label(name),), (cell(value),)) for name, value in values.items()),
    )


def _gathered(
    groups: Mapping[tuple[str, ...], Mapping[str, object]], digits: str, heading: str, depth: int
) -> Table:
    columns = list(dict.fromkeys(name for group in groups.values() for name in group))
    keys = tuple(digits if _are_whole(level) else "" for level in zip(*groups, strict=True))
    rows: list[tuple[tuple[str | None, ...], tuple[str, ...]]] = []
    above: tuple[str, ...] = ()
    for names, group in groups.items():
        repeated = len(names) > 1 and names[:1] == above[:1]
        shown = tuple(None if repeated and index == 0 else label(name) for index, name in enumerate(names))
        rows.append((shown, tuple(cell(group[column]) if column in group else "" for column in columns)))
        above = names
    return Table(heading, depth, keys, tuple(label(column) for column in columns), tuple(rows))
