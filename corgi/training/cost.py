"""The cost of a training, computed before anything is started: FLOPs, memory and hours, by arithmetic without torch."""

from dataclasses import dataclass

from corgi.models.prior_config import FEED_FORWARD_RATIO, PriorConfig
from corgi.settings.clip import TowerSettings
from corgi.settings.decoder import DecoderSettings, DenoiserSettings
from corgi.settings.recipe import Recipe
from corgi.settings.tower_width import towers_width
from corgi.training.init_from import decoder_init
from corgi.training.network_cost import heads_count, latent_shape, network_count
from corgi.training.prior_sizes import config_of, num_weights

PEAK_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L4": 121e12, "A10G": 70e12, "V100": 125e12}
"""Peak dense bf16 FLOP/s (fp16 on V100), keyed by a part of the device's name."""
GPU_BYTES = {"A100": 80e9, "H100": 80e9, "H200": 141e9, "L4": 24e9, "A10G": 24e9, "V100": 32e9}
"""Memory in bytes, by the same keys; the larger size where a GPU is sold in two."""
PLANNED_GPUS = ("A100", "H100")
"""GPUs for which --plan prints hours; an H200 computes as fast as an H100."""
UTILISATION = 0.4
"""Share of the peak FLOP/s that a plan assumes: a target for a transformer with SDPA, not a measurement."""
GPU_COUNTS = (8, 64, 512)
BACKWARD_RATIO = 2
"""A backward pass is two forward passes; recomputed blocks add one more."""
EMA_BYTES = 4


@dataclass(frozen=True)
class TrainingCost:
    """Cost of one training sample (a caption with one noise level) and of the model's state."""

    parameters: int
    forward_flops: float
    """FLOPs of a forward pass per sample, two per multiply-add."""
    recomputed: bool = False
    averages: int = 1
    """Number of averages of the weights that are kept."""

    @property
    def training_flops(self) -> float:
        """FLOPs of forward and backward pass per sample."""
        return self.forward_flops * (1 + BACKWARD_RATIO + self.recomputed)

    def samples_per_s(self, gpu: str) -> float:
        """Training samples per second of one GPU at `UTILISATION`."""
        return self.flops_per_s(gpu) / self.training_flops

    @staticmethod
    def flops_per_s(gpu: str) -> float:
        """FLOP/s of one GPU at `UTILISATION`."""
        return PEAK_FLOPS[gpu] * UTILISATION

    def hours(self, num_samples: int, gpu: str, count: int) -> float:
        """Hours for `num_samples` training samples on `count` GPUs."""
        return num_samples / self.samples_per_s(gpu) / count / 3600

    def state_bytes(self, stage: int, num_gpus: int) -> float:
        """Bytes of weights, gradients and AdamW state on one GPU under a ZeRO stage, bf16 with fp32 masters.

        2 (weights) + 2 (gradients) + 12 (fp32 weights and moments) per parameter; stage 1 shards the last of these,
        stage 2 the last two, stage 3 all three. Not included: activations, and this GPU's share of the averaged weights (4 bytes per
        parameter, divided among all GPUs).
        """
        per_parameter = {
            0: 16.0,
            1: 4 + 12 / num_gpus,
            2: 2 + 14 / num_gpus,
            3: 16 / num_gpus,
        }[stage]
        return per_parameter * self.parameters


def prior_flops(config: PriorConfig, levels: int = 1) -> float:
    """FLOPs of a prior's forward pass per sample, matrix products only, with K = `levels` noise levels per caption.

    Counts what is actually computed: a causal prior computes the prefix once for all levels, and the last block computes
    only keys and values, except for the query tokens.
    """
    shared = levels if config.causal else 1
    prefix, suffix, width = config.prefix_length, config.suffix_length, config.width
    length = prefix + shared * suffix
    dense = 12 * width * width * (FEED_FORWARD_RATIO / 4)
    every_token, key_value = 4 * width * width + dense, 2 * width * width
    attention = 2 * length * width
    blocks = (config.depth - 1) * length * (every_token + attention)
    last = length * key_value + shared * (every_token - key_value + attention)
    sequence = blocks + last + _caption_products(config) + shared * _level_products(config)
    return 2.0 * sequence / shared


def prior_cost(config: PriorConfig, levels: int = 1, num_clusters: int = 1) -> TrainingCost:
    """Return the cost of training a prior."""
    return TrainingCost(
        num_weights(config, num_clusters), prior_flops(config, levels), config.activation_checkpointing
    )


def lines(recipe: Recipe) -> list[str]:
    """Return the lines that a plan prints about a prior's training on GPUs; none for a training on CPUs."""
    settings = recipe.prior
    if not settings.training.use_gpu:
        return []
    cost = cost_of(recipe)
    if cost is None:
        return ["cost unknown: the dimension of the embeddings is not known before the tower is available"]
    return described(cost, num_samples(recipe), len(settings.variants))


def decoder_cost(recipe: Recipe) -> TrainingCost | None:
    """Return the cost of a recipe's decoder; None if the size of its latents or embeddings is not yet known, or if it starts from a diffusers U-Net."""
    shape, dim, init = latent_shape(recipe.autoencoder), towers_width(recipe), decoder_init(recipe)
    if shape is None or dim is None or (init is not None and init.config is not None):
        return None
    return _network_cost(recipe.decoder, shape, dim)


def upsampler_cost(recipe: Recipe, name: str) -> TrainingCost | None:
    """Return the cost of an upsampler of a recipe's cascade, on the squares it is trained on; None if the dimension of the embeddings is not yet known."""
    settings, dim = recipe.upsamplers[name], towers_width(recipe)
    side = settings.trained_side
    return None if dim is None else _network_cost(settings, (3, side, side), dim)


def _network_cost(settings: DenoiserSettings, shape: tuple[int, ...], dim: int) -> TrainingCost:
    count = network_count(settings, shape, dim)
    averages = 2 if isinstance(settings, DecoderSettings) and settings.weak is not None else 1
    return TrainingCost(
        count.parameters, 2.0 * count.products, settings.training.activation_checkpointing, averages
    )


def heads_cost(settings: TowerSettings) -> TrainingCost:
    """Return the cost of an own tower's heads; its frozen trunks are not part of a training step."""
    count = heads_count(settings.embed_dim)
    return TrainingCost(count.parameters, 2.0 * count.products)


def network_lines(settings: DenoiserSettings, cost: TrainingCost | None) -> list[str]:
    """Return the lines that a plan prints about a decoder's or upsampler's training on GPUs; none for a training on CPUs."""
    if not settings.training.use_gpu:
        return []
    if cost is None:
        return [
            "cost unknown: the sizes of latents and embeddings are not known before autoencoder and tower are read, and a diffusers U-Net is not counted"
        ]
    return described(cost, settings.training.num_steps * settings.training.global_batch)


def num_samples(recipe: Recipe) -> int:
    """Return the number of training samples of one variant of a recipe's prior."""
    training = recipe.prior.training
    return training.num_steps * training.global_batch * recipe.prior.noise_levels_per_caption


def cost_of(recipe: Recipe) -> TrainingCost | None:
    """Return the cost of a recipe's largest prior; None if the dimension of the embeddings is not yet known."""
    settings, dim, num_clusters = recipe.prior, towers_width(recipe), recipe.shift.num_clusters
    if dim is None:
        return None
    configs = [config_of(settings, dim, num_clusters, variant) for variant in settings.variants]
    config = max(configs, key=lambda config: num_weights(config, num_clusters))
    return prior_cost(config, settings.noise_levels_per_caption, num_clusters)


def described(cost: TrainingCost, num_samples: int, num_trainings: int = 1) -> list[str]:
    """Return FLOPs per sample, memory per GPU for ZeRO 0-3, and hours on A100 and H100, one line each."""
    printed = [
        f"{cost.parameters / 1e9:.2f} B parameters, {cost.forward_flops / 1e9:.0f} GFLOP forward and "
        f"{cost.training_flops / 1e9:.0f} GFLOP training per sample, {num_samples / 1e9:.3g} B samples"
        + (f", {num_trainings} trainings" if num_trainings > 1 else "")
    ]
    for count in GPU_COUNTS:
        memory = " / ".join(f"{cost.state_bytes(stage, count) / 1e9:.2f}" for stage in range(4))
        hours = ", ".join(
            f"{gpu} {_short(num_trainings * cost.hours(num_samples, gpu, count))} h" for gpu in PLANNED_GPUS
        )
        printed.append(
            f"{count:>3} GPUs: state {memory} GB per GPU at ZeRO 0 / 1 / 2 / 3; at {UTILISATION:.0%} of peak {hours}"
        )
    average = cost.parameters * EMA_BYTES * cost.averages / 1e9
    printed.append(
        f"in addition {average:.1f} GB of averaged weights divided among the GPUs, and activations"
    )
    return printed


def _short(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _caption_products(config: PriorConfig) -> int:
    """Multiply-adds of the projections of one caption."""
    width = config.width
    words = config.num_text_tokens * (config.encoding_dim + width) * width
    return words + (config.text_dim + width) * width


def _level_products(config: PriorConfig) -> int:
    """Multiply-adds of the projections and the head of one noise level."""
    width, dim = config.width, config.dim
    sinusoids = (1 + config.cluster_token) * 2 * width * width
    return sinusoids + (dim + width) * width + (width + dim) * dim
