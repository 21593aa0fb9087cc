"""The decoder's network as a diffusers component; nothing here knows where weights came from."""

from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from corgi.diffusion.shifted import ShiftTable
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.unet import UNetSizes


class DecoderModel(ModelMixin, ConfigMixin):
    """A network that denoises latents given an image embedding, whose table is among its weights. `facts` says what it is of."""

    @register_to_config
    def __init__(
        self, network_name: str, sizes: dict[str, Any], embedding_dim: int, facts: dict[str, Any]
    ) -> None:
        """Build an empty network; arguments are JSON."""
        super().__init__()
        tuples = {name: tuple(sizes[name]) for name in ("latent_shape", "words")}
        shape = {**sizes, **tuples, "unet": _unet(sizes["unet"])}
        names: Any = NETWORKS
        self.network = names[network_name](NetworkSizes(**shape), ShiftTable.ddpm(embedding_dim))

    def forward(self, z_t: Tensor, t: Tensor, embedding: Tensor, drop_mask: Tensor) -> Tensor:
        """Answer what the network predicts; t counts 1..T."""
        return self.network(z_t, t, embedding, drop_mask)


def _unet(sizes: dict[str, Any]) -> UNetSizes:
    made: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()
    }
    return UNetSizes(**made)
