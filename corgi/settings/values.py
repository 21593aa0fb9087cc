"""Text to values: the text of a command line or a YAML recipe is parsed according to the type of its setting.

A text setting takes the text unchanged, whatever it looks like. Numbers, booleans and null are those of YAML 1.2's core schema;
lists and mappings are YAML's. https://yaml.org/spec/1.2.2/#103-core-schema
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# YAML and pydantic give values of any type

import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from corgi.settings.errors import SettingsError
from corgi.settings.section import Section

_NULL = ("null", "Null", "NULL", "~", "")
_BOOLEANS = {
    word: kind for kind in (True, False) for word in (f"{kind}", f"{kind}".lower(), f"{kind}".upper())
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_STR, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_QUOTES = ("'", '"')


class Plain(str):
    """A YAML scalar without quotes: its meaning depends on the type of its setting."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """A YAML loader that keeps scalars without quotes as text and raises an error if a key is given twice."""

    yaml_implicit_resolvers = {"<": [(_MERGE, re.compile("<<"))]}  # noqa: RUF012 - PyYAML's own attribute

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != _MERGE:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return node


def _text_of(_: _Loader, node: yaml.ScalarNode) -> str:
    return Plain(node.value) if node.style is None else node.value


_Loader.add_constructor(_STR, _text_of)


def read_file(path: str | Path) -> object:
    """Return the contents of a YAML file; scalars without quotes are `Plain`.

    Raises:
        YAMLError: the file is not YAML.
        OSError, ValueError: it cannot be read, or is not UTF-8.

    """
    return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader


def read_override(path: str, text: str, recipe: type[Section]) -> object:
    """Return the value of the text after `path=`.

    A text setting takes the text unchanged, except for a bare `null` where the setting may be None, and for quotation marks around
    the whole text.

    Raises:
        SettingsError: the setting is not a text, and the text is not YAML.

    """
    kind = _kind_of(path.split("."), recipe)
    members = _members(kind)
    bare = not text.lstrip().startswith("[") or not any(get_origin(member) is tuple for member in members)
    if kind is Any or (bare and _is_text(members)):
        return None if text == "null" and NoneType in members else _unquoted(text)
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path}={text!r} is not YAML: {' '.join(str(error).split())}; nothing was started; put quotation marks around a text that begins with a bracket"
        ) from error
    return typed(path, value, kind)


def typed(path: str, value: object, kind: object) -> object:
    """Return a YAML value in which every scalar without quotes is parsed according to the type of its setting.

    Raises:
        SettingsError: a boolean is neither true nor false; the line names its path.

    """
    members = _members(kind)
    if isinstance(value, Plain):
        return _scalar(path, str(value), members)
    if isinstance(value, dict):
        return {
            str(name): typed(f"{path}.{name}".lstrip("."), inner, _kind_of([str(name)], kind))
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [
            typed(f"{path}.{index}", inner, _element(members, index)) for index, inner in enumerate(value)
        ]
    return value


def core(text: str) -> str | float | bool | None:
    """Return the value of a scalar without quotes in YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "", 1)) if _INFINITE.fullmatch(text) else text


def _scalar(path: str, text: str, members: Sequence[object]) -> object:
    if not text or (text in _NULL and NoneType in members):
        return None  # a key without a value is never a text; two quotation marks are the empty text
    if _is_text(members):
        return text
    value = core(text)
    if set(members) <= {bool, NoneType} and not isinstance(value, bool | NoneType):
        raise SettingsError(
            f"{path}={text!r} is neither true nor false; nothing was started; write one of the two"
        )
    return value


def _unquoted(text: str) -> str:
    """Return a text without the quotation marks around the whole of it, as YAML reads them; any other text unchanged."""
    if text[:1] not in _QUOTES or len(text) < 2:
        return text
    try:
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError:
        return text
    is_whole = (
        isinstance(node, yaml.ScalarNode) and node.style in _QUOTES and node.end_mark.index == len(text)
    )
    return node.value if is_whole else text


def _members(kind: object) -> list[object]:
    """Return the types that a setting's values may have, without their bounds."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _members(get_args(kind)[0])
    if origin in (Union, UnionType):
        return [member for part in get_args(kind) for member in _members(part)]
    return [kind]


def _is_text(members: Sequence[object]) -> bool:
    """Return whether values are text or lists of text."""
    kinds = [member for member in members if member is not NoneType]
    return bool(kinds) and all(map(_is_text_kind, kinds))


def _is_text_kind(kind: object) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return all(isinstance(part, str) for part in parts)
    if origin is tuple:
        return all(part is ... or _is_text(_members(part)) for part in parts)
    return kind is str


def _element(members: Sequence[object], index: int) -> object:
    """Return the type of one element of a list."""
    for member in members:
        parts = get_args(member)
        if get_origin(member) is tuple and parts:
            return parts[0] if parts[-1] is ... else parts[min(index, len(parts) - 1)]
    return Any


def _kind_of(path: Sequence[str], kind: object) -> object:
    """Return the type of the setting at a path below a section; Any if there is none."""
    for name in path:
        found = section_of(kind)
        if found is None or name not in found.model_fields:
            return Any
        kind = found.model_fields[name].annotation
    return kind


def section_of(kind: object) -> type[Section] | None:
    """Return the section among the types that a setting's values may have."""
    return next(
        (part for part in _members(kind) if isinstance(part, type) and issubclass(part, Section)), None
    )
