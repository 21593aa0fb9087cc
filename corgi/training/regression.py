"""The regression that a decoder reads: latents predicted from image embeddings, fitted on train rows."""

import torch
from torch import Tensor

from corgi.diffusion.shifted import ShiftTable
from corgi.feeding.feed import Rows, first_rows, tensors
from corgi.settings.decoder import DecoderSettings
from corgi.statistics.ridge import ridge

MAX_ROWS = 4096
"""Maximum number of train rows that the fit uses, as whole row groups in order: starting any training reads at most tens of megabytes."""
SHRINKAGE = 0.01
"""Ridge penalty per standardised dimension, in addition to the variance of the noise that training adds to embeddings."""


def fitted_regression(rows: Rows, table: ShiftTable, settings: DecoderSettings) -> dict[str, Tensor]:
    """Return the weights of `corgi.models.condition.Regression`: the latents of train rows regressed on their standardised embeddings.

    Every worker fits the same weights from the same rows; a training that resumes has them in its checkpoint.
    """
    columns = tensors(rows, first_rows(rows, MAX_ROWS))
    image = columns["image"].float()
    standardised = table.whiten(image, torch.zeros(len(image), dtype=torch.int64))
    penalty = settings.conditioning_noise**2 + SHRINKAGE
    weight, bias = ridge(standardised, columns["latent"].float(), penalty)
    return {"weight": weight, "bias": bias}
