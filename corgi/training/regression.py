"""The regression that a decoder reads: latents predicted from image embeddings, fitted on train rows."""

import torch
from torch import Tensor

from corgi.diffusion.shifted import ShiftTable
from corgi.feeding.feed import Rows, first_rows, tensors
from corgi.settings.decoder import DecoderSettings
from corgi.statistics.ridge import ridge

MAX_ROWS = 4096
"""Train rows that are read for the fit at most, whole row groups in order: a start of any training reads at most tens of megabytes."""
SHRINKAGE = 0.01
"""Penalty beside the noise that training puts on embeddings, per standardised number."""


def fitted_regression(rows: Rows, table: ShiftTable, settings: DecoderSettings) -> dict[str, Tensor]:
    """Return what `corgi.models.condition.Regression` loads: the latents of train rows regressed on their standardised embeddings.

    Every worker fits the same map from the same rows; a run that goes on has it in its checkpoint.
    """
    read = tensors(rows, first_rows(rows, MAX_ROWS))
    image = read["image"].float()
    standardised = table.whiten(image, torch.zeros(len(image), dtype=torch.int64))
    penalty = settings.conditioning_noise**2 + SHRINKAGE
    weight, bias = ridge(standardised, read["latent"].float(), penalty)
    return {"weight": weight, "bias": bias}
