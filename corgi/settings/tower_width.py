"""The width of CLIP towers, read from their configs alone: neither open_clip nor torch is imported."""

import json
from importlib.util import find_spec
from pathlib import Path

from corgi.settings.clip import TRAINED, TowerRef
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe


def towers_width(recipe: Recipe) -> int | None:
    """Return the width of the recipe's concatenated towers; None if the width of one is not known before it is loaded.

    Raises:
        InputError: the config of a tower cannot be read, or gives no width.

    """
    own = recipe.tower.embed_dim if recipe.tower is not None else None
    if not recipe.embed.towers:
        return own
    dims = [own if ref.pretrained == TRAINED else width_of(ref) for ref in recipe.embed.towers]
    return None if None in dims else sum(dim for dim in dims if dim is not None)


def width_of(ref: TowerRef) -> int | None:
    """Return the width of a model's vectors according to its config; None for a model without a config in open_clip.

    A config is open_clip's own for an architecture, or an `open_clip_config.json`, which holds one as `model_cfg`.

    Raises:
        InputError: the config of a tower cannot be read, or gives no width.

    """
    path = Path(ref.config) if ref.config is not None else _packaged_config(ref.model)
    if not path.is_file() and ref.config is None:
        return None
    try:
        config = json.loads(path.read_text())
        return int(config.get("model_cfg", config)["embed_dim"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: the width of tower {ref.name!r} cannot be read from it ({type(error).__name__}); nothing was started; "
            "name an open_clip config in embed.towers"
        ) from error


def _packaged_config(model: str) -> Path:
    """Return the path that open_clip's config of a model has, if there is one; the package is not imported."""
    spec = find_spec("open_clip")
    (folder,) = list(spec.submodule_search_locations or [])[:1] if spec else ["."]
    return Path(folder) / "model_configs" / f"{model.replace('/', '-')}.json"
