"""What embed.input's vectors must be, checked by file names and headers before any stage runs; needs no torch."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from corgi.clip.references import given_files
from corgi.settings.clip import EmbedSettings, TowerRef
from corgi.settings.errors import InputError
from corgi.sources.embeddings import VectorFile, widths


def check_vectors(settings: EmbedSettings) -> dict[str, int]:
    """Return each tower's width after checking every file of embed.input.

    Raises:
        InputError: a list has no vectors or vectors no list, the numbers of rows differ, or as for `check_widths`.

    """
    if settings.tokens:
        raise InputError(
            "embed.tokens are computed from captions by a text encoder, and embed.input names vectors; nothing was started; "
            "leave embed.tokens empty"
        )
    return check_widths(given_files(settings), settings.towers)


def check_widths(files: Sequence[VectorFile], towers: Sequence[TowerRef]) -> dict[str, int]:
    """Return each tower's width after comparing every file with the others and with the models that the recipe names.

    Raises:
        InputError: a tower has no image vectors, vectors are of several widths, or not of the width of the tower's model.

    """
    models = {ref.name: ref for ref in towers}
    names = sorted(models) or sorted({name.rpartition("/")[0] for name in files[0].arrays})
    dims: dict[str, tuple[int, str]] = {}
    for file in files:
        found = widths(file)
        for name in names:
            if f"{name}/image" not in found:
                held = ", ".join(sorted({column.rpartition("/")[0] for column in found}))
                raise InputError(
                    f"{file.metadata}: no image vectors of tower {name!r} beside it (there are {held or 'none'}); nothing was started; "
                    "name in embed.towers the towers that made them"
                )
        for column, dim in sorted(found.items()):
            tower = column.rpartition("/")[0]
            known, where = dims.setdefault(tower, (dim, f"{file.metadata} ({column})"))
            if dim != known:
                raise InputError(
                    f"{file.metadata}: {column} is {dim} numbers wide and {where} is {known}; nothing was started; "
                    "give vectors of one model"
                )
    for name, ref in models.items():
        expected = width_of(ref)
        if expected is not None and expected != dims[name][0]:
            raise InputError(
                f"{dims[name][1]}: vectors of tower {name!r} are {dims[name][0]} numbers wide, those of {ref.model} {expected}; "
                "nothing was started; name in embed.towers the model that made them"
            )
    return {name: dims[name][0] for name in names}


def width_of(ref: TowerRef) -> int | None:
    """Return the width of a model's vectors as its config says; None for a model that open_clip has no config of.

    Raises:
        InputError: the config of a tower cannot be read, or gives no width.

    """
    path = Path(ref.config) if ref.config is not None else _packaged_config(ref.model)
    if not path.is_file() and ref.config is None:
        return None
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        return int(config.get("model_cfg", config)["embed_dim"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: no width of tower {ref.name!r} can be read in it ({type(error).__name__}); nothing was started; "
            "name an open_clip config in embed.towers"
        ) from error


def _packaged_config(model: str) -> Path:
    """Return where open_clip's config of a model is, if it has one; the package is not imported for it."""
    spec = find_spec("open_clip")
    (folder,) = list(spec.submodule_search_locations or [])[:1] if spec else ["."]
    return Path(folder) / "model_configs" / f"{model.replace('/', '-')}.json"
