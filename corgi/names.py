"""Closed vocabularies that settings offer and a registry beside the code fills: each name is typed, and known without importing torch."""

from typing import Literal

SamplerName = Literal["ancestral", "ancestral_small", "ddim", "dpm++"]
"""Filled by `corgi.diffusion.samplers.SAMPLERS`."""

NetworkName = Literal["mlp", "unet", "dit"]
"""Filled by `corgi.models.networks.NETWORKS`."""

LatentSpaceName = Literal["linear"]
"""Filled by `corgi.models.autoencoder.LATENT_SPACES`."""

ChoiceRule = Literal["text", "monte_carlo", "soft", "learned", "learned_soft"]
"""How a caption chooses its cluster: `corgi.diffusion.choice.ClusterChoice`."""

ActivationName = Literal["none", "sigmoid"]
"""Filled by `corgi.clip.scores.ACTIVATIONS`."""

JudgeName = Literal["efficientnet_lite1"]
"""Filled by `corgi.evaluation.judges.JUDGES`."""
