"""The network of a decoder or an upsampler as a diffusers component; this module does not depend on where the weights came from."""

from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from corgi.diffusion.shifted import ShiftTable
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.unet import UNetSizes


class DecoderModel(ModelMixin, ConfigMixin):
    """A network that denoises latents given an image embedding; the embedding's shift table is among its weights. `facts` says what it was made from."""

    @register_to_config
    def __init__(
        self, network_name: str, sizes: dict[str, Any], embedding_dim: int, facts: dict[str, object]
    ) -> None:
        """Build an empty network; arguments are JSON."""
        super().__init__()
        shape = {**_tupled(sizes), "unet": UNetSizes(**_tupled(sizes["unet"]))}
        names: Any = NETWORKS
        self.network = names[network_name](NetworkSizes(**shape), ShiftTable.ddpm(embedding_dim))

    def forward(self, z_t: Tensor, t: Tensor, embedding: Tensor, drop_mask: Tensor, **seen: Tensor) -> Tensor:
        """Return the network's prediction; t counts 1..T, `seen` are the additional inputs of an upsampler."""
        return self.network(z_t, t, embedding, drop_mask, **seen)


def _tupled(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return sizes with the tuples that they had before JSON made lists of them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
