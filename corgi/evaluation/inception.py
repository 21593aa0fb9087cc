"""The network of FID and KID: Inception of 2015-12-05 as in torch-fidelity, with weights only from a given file."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.models.device import given_device
from corgi.settings.errors import InputError
from corgi.storage.files import sha256_of_file

FEATURES = "2048"
"""The pooled features before the last layer: pool3 of the original."""
BATCH = 32
RESIZE = "299 px by TensorFlow 1's bilinear filter as torch-fidelity has it, antialias=False"


@dataclass(frozen=True)
class Inception:
    """The network with a file's weights; `facts` are reported with every figure computed with it."""

    network: Any
    facts: dict[str, str]

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n dim"]:
        """Return the pooled features of RGB pictures, resized by the network itself."""
        batches = [self._batch(pictures[first : first + BATCH]) for first in range(0, len(pictures), BATCH)]
        return torch.cat(batches).double().cpu().numpy()

    def _batch(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "n dim"]:
        device = next(self.network.parameters()).device
        if len({picture.size for picture in pictures}) > 1:
            return torch.cat([self._batch([picture]) for picture in pictures])
        return self.network(bytes_of(pictures).to(device))[0]


def bytes_of(pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures of one size as bytes [n, 3, height, width], red first."""
    rows = [np.asarray(picture.convert("RGB")) for picture in pictures]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


def load_inception(path: str | Path, sha256: str | None = None) -> Inception:
    """Load the network with the weights of a file, on this process's GPU, else on the CPU. Nothing is downloaded.

    Raises:
        InputError: torch-fidelity is not installed, or the file is missing, has another sha256 than expected, or does not
            contain weights of this network.

    """
    if not Path(path).is_file():
        raise InputError(
            f"{path} is not a file of Inception weights; nothing was scored; name one, since nothing is downloaded"
        )
    digest = sha256_of_file(Path(path))
    if sha256 is not None and digest != sha256.lower():
        raise InputError(
            f"{path} has sha256 {digest}, but {sha256.lower()} is expected; nothing was scored; name the expected file"
        )
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        torch.load(path, weights_only=True)  # torch-fidelity itself would execute code from the file
        network: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", [FEATURES], feature_extractor_weights_path=str(path)
        )
    except ImportError as error:
        raise InputError(
            f"FID and KID need torch-fidelity, which is not installed ({error}); nothing was scored; pip install torch-fidelity"
        ) from error
    except (RuntimeError, KeyError, OSError, EOFError, pickle.UnpicklingError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} does not contain weights of this Inception: {cause}; nothing was scored; name torch-fidelity's file"
        ) from error
    facts = {"network": "inception-v3-compat of torch-fidelity", "sha256": digest, "resize": RESIZE}
    return Inception(network.eval().to(given_device()), facts)
