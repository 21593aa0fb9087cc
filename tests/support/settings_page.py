"""docs/settings.md: every setting of a recipe, from the types, bounds and docstrings where they are declared.

`python -m tests.support.settings_page` writes the page; a test keeps it current.
"""

import json
import re
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from corgi.settings.recipe import Recipe
from corgi.settings.section import OneOf, Section

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"

_HEAD = """# Settings

A recipe is a YAML file that holds only what differs from the defaults below. Any setting can be changed on the command line:
`python pipelines/full.py RECIPE prior.width=1024`. An unknown key or a value out of bounds is one line that names its path.

*Place* settings change where or how fast a run computes, never its result: changing one redoes nothing.

This page is written by `python -m tests.support.settings_page` from the declarations in `corgi/settings/`.
"""
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_section("", Recipe)]).rstrip() + "\n"


def _section(path: str, section: type[Section], held: Section | None = None) -> Iterator[str]:
    """Yield a heading, a table of the section's own settings, then the sections inside it.

    `held` is the section as the one around it sets it, where it does: its defaults may not be those of its class.
    """
    yield f"## {path or 'The recipe itself'}\n"
    yield f"{_text(section.__doc__)}\n"
    nested = {name: _sections_in(field) for name, field in section.model_fields.items()}
    plain = [name for name, inside in nested.items() if not inside]
    if plain:
        yield "| setting | type | default | what it does |\n|---|---|---|---|"
        yield from (_row(path, name, section.model_fields[name], held) for name in plain)
        yield ""
    for name, inside in nested.items():
        field = section.model_fields[name]
        value = field.default if held is None else getattr(held, name)
        for one in inside:
            within = _path(path, name) + ("[]" if _is_list(field.annotation) else "")
            yield from _section(within, one, value if isinstance(value, one) else None)


def _row(path: str, name: str, field: FieldInfo, held: Section | None) -> str:
    marks: Any = field.json_schema_extra or {}
    kind = " *Place.*" if marks.get("neutral") else ""
    default = _default(field) if held is None else _shown(getattr(held, name))
    cells = [f"`{_path(path, name)}`", _type(field), default, _text(field.description) + kind]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _text(words: str | None) -> str:
    return re.sub(r"\bNone\b", "null", " ".join((words or "").split()))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    return _shown(value)


def _shown(value: object) -> str:
    return f"`{json.dumps(to_jsonable_python(value), ensure_ascii=False)}`"


def _type(field: FieldInfo) -> str:
    bounds = [_bound(mark) for mark in field.metadata]
    return ", ".join(filter(None, [_annotation(field.annotation), *bounds]))


def _bound(mark: Any) -> str:
    for name, sign in _BOUNDS.items():
        if (value := getattr(mark, name, None)) is not None:
            return f"{sign} {value:g}" if isinstance(value, int | float) else f"{sign} {value}"
    if isinstance(mark, annotated_types.MinLen):
        return f"at least {mark.min_length}"
    if isinstance(mark, annotated_types.MaxLen):
        return f"at most {mark.max_length}"
    return f"matches `{mark.pattern}`" if getattr(mark, "pattern", None) else ""


def _one_of(values: Iterable[Any]) -> str:
    return "one of " + ", ".join(f"`{json.dumps(value)}`".replace('"', "") for value in values)


def _annotation(kind: Any) -> str:
    """Return a type in a reader's words: one of (...), list of ..., ... or null."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "null"
    if origin is Literal:
        return _one_of(inside)
    if origin in (Union, types.UnionType):
        return " or ".join(_annotation(one) for one in inside)
    if origin in (tuple, list):
        return "list of " + _annotation(inside[0])
    if origin is dict:
        return f"map of {_annotation(inside[0])} to {_annotation(inside[1])}"
    if origin is not None and hasattr(kind, "__metadata__"):
        names = next((mark for mark in kind.__metadata__ if isinstance(mark, OneOf)), None)
        bounds = [_bound(mark) for mark in kind.__metadata__]
        return _one_of(names.names) if names else ", ".join(filter(None, [_annotation(inside[0]), *bounds]))
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(
        kind, getattr(kind, "__name__", str(kind))
    )


def _sections_in(field: FieldInfo) -> list[type[Section]]:
    return list(dict.fromkeys(_walk(field.annotation)))


def _walk(kind: Any) -> Iterator[type[Section]]:
    if isinstance(kind, type) and issubclass(kind, Section):
        yield kind
    for one in get_args(kind):
        yield from _walk(one)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list) or any(_is_list(one) for one in get_args(kind))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
