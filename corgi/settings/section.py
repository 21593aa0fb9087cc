"""The base of every settings section: typed, frozen, documented where declared."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A stage's settings: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lay_over_the_default(cls, values: Any) -> Any:
        """Let a nested section hold differences only: the rest stays as this class sets it, not as its own class does."""
        if not isinstance(values, dict):
            return values
        laid = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Section) and isinstance(values.get(name), dict):
                laid[name] = {**field.default.model_dump(exclude_unset=True), **values[name]}
        return laid

    def meaning(self) -> dict[str, Any]:
        """Return the settings that can change a result: all but those marked neutral."""
        kept: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("neutral"):
                continue
            value = getattr(self, name)
            kept[name] = value.meaning() if isinstance(value, Section) else self.model_dump(mode="json")[name]
        return kept


def neutral(default: Any, **constraints: Any) -> Any:
    """Declare a setting that changes speed or place, never a result: it stays out of every key."""
    return Field(default, json_schema_extra={"neutral": True}, **constraints)


def digest(value: Any) -> str:
    """Return the 32 hex digits that name a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
