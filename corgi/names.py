"""Closed vocabularies that settings offer and a registry beside the code fills: each name is typed, and known without importing torch."""

from typing import Literal

SamplerName = Literal["ancestral", "ancestral_small", "ddim", "dpm++"]
"""Filled by `corgi.diffusion.samplers.SAMPLERS`."""

NEED_SIGNAL: frozenset[SamplerName] = frozenset({"dpm++"})
"""Samplers that need abar_T > 0: no schedule of zero terminal SNR."""

NetworkName = Literal["mlp"]
"""Filled by `corgi.models.networks.NETWORKS`."""

LatentSpaceName = Literal["linear"]
"""Filled by `corgi.models.autoencoder.LATENT_SPACES`."""

ChoiceRule = Literal["text", "monte_carlo", "soft", "learned", "learned_soft"]
"""How a caption chooses its cluster: `corgi.diffusion.choice.ClusterChoice`."""

ActivationName = Literal["none", "sigmoid"]
"""Filled by `corgi.clip.scores.ACTIVATIONS`."""
