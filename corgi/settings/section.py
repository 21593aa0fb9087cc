"""The base of every settings section: typed, frozen, documented where declared."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# YAML and pydantic give values of any type

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict, TypeVar, Unpack

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema, to_jsonable_python

_Value = TypeVar("_Value")
_RECORDED = {"recorded": True}
"""Validation context of settings that an earlier version may have written."""


class Section(BaseModel):
    """A stage's settings: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lay_over_the_default(cls, values: object, info: ValidationInfo) -> object:
        """Let a nested section hold only differences: the rest has the defaults of this class, not those of the nested class."""
        if not isinstance(values, dict):
            return values
        if info.context is _RECORDED:
            return _before(cls) | values
        laid = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Section) and isinstance(values.get(name), dict):
                laid[name] = {**field.default.model_dump(exclude_unset=True), **values[name]}
        return laid

    @classmethod
    def recorded(cls, values: Mapping[str, object]) -> Self:
        """Return settings that this or an earlier version wrote: settings that they do not name did not exist then.

        Raises:
            pydantic.ValidationError: they hold a setting or value that no longer exists.

        """
        return cls.model_validate(values, context=_RECORDED)

    @classmethod
    def recorded_meaning(cls, values: Mapping[str, object]) -> dict[str, object]:
        """Return the meaning of some of the sections of this class that this or an earlier version wrote.

        Sections that can no longer be read stay as written, so that they are equal to no current settings.
        """
        found = {}
        for name, told in values.items():
            field = cls.model_fields.get(name)
            read = told if field is None else _read(field, told)
            if field is None or not (_is_neutral(field) or _asks_nothing_new(field, read)):
                found[name] = read
        return found

    def meaning(self, names: Iterable[str] | None = None) -> dict[str, object]:
        """Return the settings that can change a result, as JSON; only those of `names` if given.

        Neutral settings are left out, and so are settings added later whose value means what was done before they existed.
        """
        fields = type(self).model_fields
        chosen = list(fields) if names is None else names
        values = {name: _meaning(getattr(self, name)) for name in chosen if not _is_neutral(fields[name])}
        return {name: value for name, value in values.items() if not _asks_nothing_new(fields[name], value)}


@dataclass(frozen=True)
class OneOf:
    """Annotates a text setting that is one of the names of a registry, known without importing what is registered."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate like a Literal of the names."""
        return core_schema.literal_schema(list(self.names))


def _meaning(value: object) -> object:
    if isinstance(value, Section):
        return value.meaning()
    if isinstance(value, tuple | list):
        return [_meaning(item) for item in value]
    if isinstance(value, dict):
        return {name: _meaning(item) for name, item in value.items()}
    return to_jsonable_python(value)


def _read(field: FieldInfo, told: object) -> object:
    """Return the meaning of a field's value as an earlier version wrote it."""
    kind: Any = field.annotation
    try:
        return _meaning(TypeAdapter(kind).validate_python(told, context=_RECORDED))
    except ValidationError:
        return told


def _before(kind: type[Section]) -> dict[str, object]:
    """Return the added settings of a section, each with the value that means what was done before it existed."""
    marks = {name: _mark(field, "added") for name, field in kind.model_fields.items()}
    return {name: added["before"] for name, added in marks.items() if added is not None}


def _mark(field: FieldInfo, name: str) -> Any:
    marks = field.json_schema_extra
    return marks.get(name) if isinstance(marks, dict) else None


def _is_neutral(field: FieldInfo) -> bool:
    return bool(_mark(field, "neutral"))


def _asks_nothing_new(field: FieldInfo, meaning: object) -> bool:
    marks = _mark(field, "added")
    return marks is not None and meaning == _meaning(marks["before"])


class Constraints(TypedDict, total=False):
    """The bounds that a setting may have in addition to its type."""

    ge: float
    gt: float
    le: float
    lt: float
    min_length: int
    max_length: int
    pattern: str


def neutral(default: _Value, **constraints: Unpack[Constraints]) -> _Value:
    """Declare a setting that changes speed or where work is done, never a result. It is not part of any key."""
    return Field(default, json_schema_extra={"neutral": True}, **constraints)


def added(default: _Value, *, since: str, before: object = ..., **constraints: Unpack[Constraints]) -> _Value:
    """Declare a setting or section that version `since` added: finished runs keep their keys (docs/decisions/0006).

    It is not part of any key while it has the value `before`, which must mean what was done without the setting: the default,
    unless another value is given.
    """
    marks: dict[str, Any] = {"since": since, "before": default if before is ... else before}
    return Field(default, json_schema_extra={"added": marks}, **constraints)


def digest(value: object) -> str:
    """Return the 32 hex digits that identify a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
