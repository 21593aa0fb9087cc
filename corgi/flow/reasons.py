"""Why a stage that a run has finished before must be made again: the differences between what its key depended on then and now."""

import json
import re
from collections.abc import Iterator
from typing import TypeGuard

from corgi.flow.context import Context, meaning_of
from corgi.flow.stage import Stage
from corgi.settings.errors import StorageError
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import StageManifest
from corgi.tables.run import Run

_LISTED, _SHOWN = 5, 60
_ABSENT: dict[str, object] = {}
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")


def reasons(run: Run, context: Context) -> list[str]:
    """Return what has changed since the run finished the stage; empty if it never did."""
    before = run.former(context.stage.name)
    if before is None or before.key == context.key:
        return []
    found = [
        *_versions(context.stage, context.parts, before),
        *_settings(context.stage, context.recipe, before),
        *_inputs(run, context, before),
        *_outside(before.outside, context.outside),
    ]
    if not found and before.outside is None and context.outside:  # version 0.1 did not record it
        found = ["a file outside the store changed"]
    return _few(found)


def reasons_to_come(run: Run, stage: Stage, recipe: Recipe, missing: list[str]) -> list[str]:
    """Return the reasons that are known before some inputs are made; a stage whose inputs turn out the same as before is not made again."""
    before = run.former(stage.name)
    if before is None:
        return []
    own = [*_versions(stage, stage.parts(recipe), before), *_settings(stage, recipe, before)]
    return _few(own) or [f"{', '.join(missing)} may change"]


def _versions(stage: Stage, parts: dict[str, int], before: StageManifest) -> Iterator[str]:
    if stage.version != before.version:
        yield f"version {before.version} -> {stage.version}"
    for part, number in parts.items():
        was = (before.parts or {}).get(part, 0)
        if number != was:
            yield f"version of {part} {was} -> {number}"


def _settings(stage: Stage, recipe: Recipe, before: StageManifest) -> Iterator[str]:
    was = type(recipe).recorded_meaning(before.settings)
    return _differences(was, meaning_of(stage, recipe), "")


def _differences(was: object, now: object, path: str) -> Iterator[str]:
    if _is_mapping(was) and _is_mapping(now):
        for name in sorted({*was, *now}):
            inner = f"{path}.{name}" if path else name
            yield from _differences(was.get(name, _ABSENT), now.get(name, _ABSENT), inner)
    elif was != now:
        yield f"{path} {_shown(was)} -> {_shown(now)}"


def _shown(value: object) -> str:
    text = "unset" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _inputs(run: Run, context: Context, before: StageManifest) -> Iterator[str]:
    for name, found in context.inputs.items():
        path = before.inputs.get(name)
        if path is None:
            yield f"input {name} is new"
        elif path != found.path and _digest(run, path) != found.digest:
            yield f"input {name} changed"
    yield from (f"input {name} is gone" for name in before.inputs if name not in context.inputs)


def _digest(run: Run, path: str) -> str | None:
    try:
        return run.store.read_stage(path).digest
    except StorageError:
        return None


def _outside(was: object, now: object) -> Iterator[str]:
    """Yield how files differ by content; a mapping has their names, a list only what is known of each."""
    if was is None or was == now:
        return
    if _is_mapping(was) and _is_mapping(now):
        yield from (f"{name} is gone" for name in was if name not in now)
        yield from (f"{name} changed" for name in now if name in was and was[name] != now[name])
        yield from (f"{name} is new" for name in now if name not in was)
    elif _is_list(was) and _is_list(now):
        yield from (f"{_short(item)} is gone" for item in was if item not in now)
        yield from (f"{_short(item)} is new" for item in now if item not in was)
    else:
        yield "a file outside the store changed"


def _short(item: object) -> str:
    return _HASH.sub(r"\1…", str(item))


def _few(found: list[str]) -> list[str]:
    return found if len(found) <= _LISTED else [*found[:_LISTED], f"{len(found) - _LISTED} more"]


def _is_mapping(value: object) -> TypeGuard[dict[str, object]]:
    """Return whether a value from JSON is an object."""
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    """Return whether a value from JSON is an array."""
    return isinstance(value, list)
