"""Checks that there is data to train on, made by the driver before any worker starts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from corgi.feeding.feed import Rows
from corgi.feeding.packed_rows import CaptionedRows
from corgi.feeding.packed_set import PackedSet
from corgi.settings.errors import InputError
from corgi.settings.training import TrainingSettings
from corgi.tables.schema import Split

_NO_PICTURE = "no train picture is selected, so nothing can be learnt; committed work is safe; loosen curate or name a longer list"


def check_captioned_rows(packed: PackedSet, rows: CaptionedRows) -> None:
    """Check that a prior has rows to train on.

    Raises:
        InputError: there is no row; the message says what is missing.

    """
    if sum(rows.counts):
        return
    num_selected = packed.num_rows(Split.TRAIN)
    if not num_selected:
        raise InputError(_NO_PICTURE)
    num_allowed = num_selected - packed.num_withheld
    if not num_allowed:
        raise InputError(
            f"the selection allows no caption of the {num_selected} train pictures to be learnt from; committed work is safe; raise curate.caption_share"
        )
    raise InputError(
        f"none of the {num_allowed} train pictures has a full caption with a vector, and a prior learns from captions; committed work is safe; "
        "name plan.caption_col, or give captions or text vectors"
    )


def check_pictures(num_train: int) -> None:
    """Check that there are pictures to train on.

    Raises:
        InputError: there are none.

    """
    if not num_train:
        raise InputError(_NO_PICTURE)


def check_val_rows(rows: Rows, settings: TrainingSettings) -> None:
    """Check that there are val rows if checkpoints are ranked by a metric on val.

    Raises:
        InputError: `keep_best` is set and there is no val row.

    """
    check_val(sum(rows.counts), settings)


def check_val(num_val: int, settings: TrainingSettings) -> None:
    """Check a number of val rows as `check_val_rows` does.

    Raises:
        InputError: `keep_best` is set and there is no val row.

    """
    if settings.keep_best and not num_val:
        raise InputError(
            f"training.keep_best={settings.keep_best} ranks checkpoints by val, but there is no val row to measure; committed work is safe; "
            "set it to 0, raise plan.val_share or name a longer list"
        )


def check_pictures_differ(pictures: Sequence[Shaped[Tensor, "n 3 side side"]]) -> None:
    """Check that the train pictures on which an autoencoder is fitted are not all equal.

    Raises:
        InputError: all are equal.

    """
    if not any(bool((part != pictures[0][0]).any()) for part in pictures):
        raise InputError(
            f"the autoencoder must be fitted on train pictures that differ, but the {sum(map(len, pictures))} that are left are all equal; "
            "tables are safe; loosen the filters or name a longer list"
        )


def check_spread(embeddings: Float[np.ndarray, "n dim"]) -> None:
    """Check that the train pictures' embeddings are not all equal.

    Raises:
        InputError: all embeddings are equal.

    """
    if not (embeddings != embeddings[:1]).any():
        raise InputError(
            f"the {len(embeddings)} train pictures have one and the same embedding, so there is no spread to measure or to learn; "
            "committed work is safe; name a longer list or loosen curate"
        )
