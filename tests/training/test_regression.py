"""The regression of latents on embeddings that a decoder reads: fitted on the first train rows."""

import numpy as np
import torch

from corgi.diffusion.shifted import ShiftTable
from corgi.settings.decoder import DecoderSettings
from corgi.training import regression


class TwoUnits:
    """Rows of one linear law, then a unit that must not be read."""

    counts = (50, 50)

    def load(self, unit: int) -> dict[str, np.ndarray]:
        assert unit == 0
        image = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float16)
        return {"image": image, "latent": (3 * image[:, :2] + 1).astype(np.float16)}


def test_a_bounded_number_of_rows_tells_the_law(monkeypatch) -> None:
    """The noise of training shrinks it: of variance 0.25 on each standardised number, a fifth goes."""
    monkeypatch.setattr(regression, "MAX_ROWS", 40)
    settings = DecoderSettings(network="unet", regression=True, conditioning_noise=0.5)
    found = regression.fitted_regression(TwoUnits(), ShiftTable.ddpm(4), settings)
    image = torch.from_numpy(TwoUnits().load(0)["image"]).float()
    centred = image - image.mean(0)
    covariance = centred.mT @ centred / 50
    shrunk = torch.linalg.solve(covariance + (0.25 + regression.SHRINKAGE) * torch.eye(4), covariance)
    torch.testing.assert_close(found["weight"], 3 * shrunk[:, :2].mT, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(
        found["bias"], 1 + (3 * torch.eye(4)[:2] - found["weight"]) @ image.mean(0), rtol=1e-2, atol=1e-2
    )
