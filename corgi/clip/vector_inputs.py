"""Checks of embed.input's vectors by file names and headers, before any stage runs; this module does not import torch."""

from collections.abc import Sequence

from corgi.clip.references import given_files
from corgi.settings.clip import EmbedSettings, TowerRef
from corgi.settings.errors import InputError
from corgi.settings.tower_width import width_of
from corgi.sources.embeddings import VectorFile, widths


def check_vectors(settings: EmbedSettings) -> dict[str, int]:
    """Return each tower's width after checking every file of embed.input.

    Raises:
        InputError: a list has no vectors, vectors have no list, the numbers of rows differ, or `check_widths` fails.

    """
    if settings.tokens:
        raise InputError(
            "embed.tokens are computed from captions by a text encoder, but embed.input names vectors; nothing was started; "
            "leave embed.tokens empty"
        )
    return check_widths(given_files(settings), settings.towers)


def check_widths(files: Sequence[VectorFile], towers: Sequence[TowerRef]) -> dict[str, int]:
    """Return each tower's width after comparing every file with the others and with the models that the recipe names.

    Raises:
        InputError: a tower has no image vectors, or vectors of different widths, or not of the width of the tower's model.

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
                    f"{file.metadata} has no image vectors of tower {name!r} (it has those of {held or 'no tower'}); nothing was started; "
                    "name in embed.towers the towers that made them"
                )
        for column, dim in sorted(found.items()):
            tower = column.rpartition("/")[0]
            known, where = dims.setdefault(tower, (dim, f"{file.metadata} ({column})"))
            if dim != known:
                raise InputError(
                    f"{file.metadata}: {column} has {dim} dimensions and {where} has {known}; nothing was started; "
                    "give vectors of one model"
                )
    for name, ref in models.items():
        expected = width_of(ref)
        if expected is not None and expected != dims[name][0]:
            raise InputError(
                f"{dims[name][1]}: vectors of tower {name!r} have {dims[name][0]} dimensions, those of {ref.model} {expected}; "
                "nothing was started; name in embed.towers the model that made them"
            )
    return {name: dims[name][0] for name in names}
