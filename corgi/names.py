"""The names that settings accept and for which a registry in another package has the entries: typed, and importable without torch.

The module also declares the keys that are read from config files of diffusers.
"""

from typing import Literal, Required, TypedDict

SamplerName = Literal["ancestral", "ancestral_small", "ddim", "dpm++"]
"""Filled by `corgi.diffusion.samplers.SAMPLERS`."""

NetworkName = Literal["mlp", "unet", "dit"]
"""Filled by `corgi.models.networks.NETWORKS`."""

LatentSpaceName = Literal["linear", "kl", "vq", "pretrained", "pixels"]
"""Filled by `corgi.models.latent_spaces.LATENT_SPACES`."""

TRAINED_SPACES: frozenset[LatentSpaceName] = frozenset({"kl", "vq"})
"""Latent spaces whose autoencoder is trained by the training loop, with a perceptual loss."""

ChoiceRule = Literal["text", "monte_carlo", "soft", "learned", "learned_soft"]
"""How the cluster of a caption is chosen: `corgi.diffusion.choice.ClusterChoice`."""

ActivationName = Literal["none", "sigmoid"]
"""Filled by `corgi.clip.scores.ACTIVATIONS`."""

JudgeName = Literal["efficientnet_lite1"]
"""Filled by `corgi.evaluation.judges.JUDGES`."""

PseudoTextName = Literal["fixed", "trained", "retrieved"]
"""How a decoder's pseudo text is made: `corgi.training.pseudo_text`."""

EmbedderName = Literal["prior", "text", "softmax", "neighbours"]
"""Methods that turn a caption into an image embedding; filled by `corgi.inference.embedders.EMBEDDERS`."""

UPSAMPLERS = ("upsampler", "second_upsampler")
"""Sections and stages of the cascade's steps, in order."""


class UNetConfig(TypedDict, total=False):
    """The keys of a diffusers config.json that `corgi.models.pretrained_unet` reads; the file's other keys are passed on."""

    _class_name: str
    in_channels: int
    out_channels: int
    block_out_channels: list[int]
    cross_attention_dim: int | list[int]
    class_embed_type: str | None
    addition_embed_type: str | None
    encoder_hid_dim_type: str | None
    num_class_embeds: int | None


class AutoencoderConfig(TypedDict, total=False):
    """The keys of a diffusers config.json that `corgi.models.pretrained_codec` reads; the file's other keys are passed on."""

    _class_name: Required[str]
    in_channels: int
    out_channels: int
    scaling_factor: Required[float]
    shift_factor: float | None
    quantise: bool
    """A key of Corgi's own: whether a VQModel quantises in decoding."""
