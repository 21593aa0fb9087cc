"""What a training costs before anything is started: FLOPs, memory and hours, as pure arithmetic without torch."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from corgi.models.prior_config import FEED_FORWARD_RATIO, PriorConfig
from corgi.settings.recipe import Recipe

PEAK_FLOPS = {"A100": 312e12, "H100": 989e12}
"""Dense bf16 FLOP/s."""
UTILISATION = 0.4
"""Share of the peak a training is planned at: a target for a transformer with SDPA, not a measurement."""
GPU_COUNTS = (8, 64, 512)
BACKWARD_RATIO = 2
"""A backward pass is two forward passes; recomputed blocks add one more."""
EMA_BYTES = 4


@dataclass(frozen=True)
class TrainingCost:
    """Cost of one training sample (a caption with one noise level) and of the model's state."""

    parameters: int
    forward_flops: float
    """FLOPs a sample of a forward pass, two per multiply-add."""
    recomputed: bool = False

    @property
    def training_flops(self) -> float:
        """FLOPs a sample of forward and backward pass."""
        return self.forward_flops * (1 + BACKWARD_RATIO + self.recomputed)

    def samples_per_s(self, gpu: str) -> float:
        """Training samples per second of one GPU at `UTILISATION`."""
        return PEAK_FLOPS[gpu] * UTILISATION / self.training_flops

    def hours(self, num_samples: int, gpu: str, count: int) -> float:
        """Hours for so many training samples on so many GPUs."""
        return num_samples / self.samples_per_s(gpu) / count / 3600

    def state_bytes(self, stage: int, num_gpus: int) -> float:
        """Bytes of weights, gradients and AdamW state on one GPU under a ZeRO stage, bf16 with fp32 masters.

        2 (weights) + 2 (gradients) + 12 (fp32 weights and moments) a parameter; stages 1, 2, 3 split the last,
        the last two, and all of them. Activations and the averaged weights (4 a parameter on the first rank) come on top.
        """
        per_parameter = {
            0: 16.0,
            1: 4 + 12 / num_gpus,
            2: 2 + 14 / num_gpus,
            3: 16 / num_gpus,
        }[stage]
        return per_parameter * self.parameters


def prior_flops(config: PriorConfig, levels: int = 1) -> float:
    """FLOPs a sample of a prior's forward pass, matrix products only, with K = `levels` noise levels a caption.

    Counts what runs: one prefix for all levels, and a last block that computes the queries alone.
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


def prior_cost(config: PriorConfig, levels: int = 1) -> TrainingCost:
    """Return the cost of training a prior."""
    return TrainingCost(config.num_parameters(), prior_flops(config, levels), config.activation_checkpointing)


def lines(recipe: Recipe) -> list[str]:
    """Return what a plan prints of a prior's training on GPUs; nothing for a training on CPUs."""
    settings = recipe.prior
    if not settings.training.use_gpu:
        return []
    dim = embedding_dim(recipe)
    if dim is None:
        return ["cost unknown: the dimension of the embeddings is known when the tower is there"]
    config = PriorConfig(
        dim=dim,
        text_dim=dim,
        width=settings.width,
        depth=settings.depth,
        heads=settings.heads,
        num_text_tokens=settings.num_text_tokens,
        encoding_dim=settings.encoding_dim,
        cluster_token=settings.cluster_token,
        causal=settings.causal,
        activation_checkpointing=settings.activation_checkpointing,
    )
    levels = settings.noise_levels_per_caption
    num_samples = settings.training.num_steps * settings.training.global_batch * levels
    return described(prior_cost(config, levels), num_samples, len(settings.variants))


def described(cost: TrainingCost, num_samples: int, num_trainings: int = 1) -> list[str]:
    """Return FLOPs a sample, memory a GPU for ZeRO 0-3, and hours on A100 and H100, one line each."""
    found = [
        f"{cost.parameters / 1e9:.2f} B parameters, {cost.forward_flops / 1e9:.0f} GFLOP forward and "
        f"{cost.training_flops / 1e9:.0f} GFLOP training a sample, {num_samples / 1e9:.3g} B samples"
        + (f", {num_trainings} trainings" if num_trainings > 1 else "")
    ]
    for count in GPU_COUNTS:
        memory = " / ".join(f"{cost.state_bytes(stage, count) / 1e9:.2f}" for stage in range(4))
        hours = ", ".join(
            f"{gpu} {num_trainings * cost.hours(num_samples, gpu, count):,.0f} h" for gpu in PEAK_FLOPS
        )
        found.append(
            f"{count:>3} GPUs: state {memory} GB a GPU at ZeRO 0 / 1 / 2 / 3; at {UTILISATION:.0%} of peak {hours}"
        )
    average = cost.parameters * EMA_BYTES / 1e9
    found.append(f"beside it {average:.1f} GB of averaged weights on the first rank, and activations")
    return found


def embedding_dim(recipe: Recipe) -> int | None:
    """Return the dimension of the concatenated towers, read from open_clip's model configs; None when one is unknown."""
    if not recipe.embed.towers:
        return recipe.tower.embed_dim if recipe.tower is not None else None
    dims = [_tower_dim(tower.model, tower.config) for tower in recipe.embed.towers]
    return None if None in dims else sum(dim for dim in dims if dim is not None)


def _tower_dim(model: str, config: str | None) -> int | None:
    """Read one config file; open_clip itself is not imported, since it imports torch."""
    spec = importlib.util.find_spec("open_clip")
    if config is None and (spec is None or spec.origin is None):
        return None
    own = (
        Path(spec.origin).parent / "model_configs" / f"{model.replace('/', '-')}.json"
        if spec and spec.origin
        else None
    )
    path = Path(config) if config is not None else own
    if path is None or not path.is_file():
        return None
    config_of_model = json.loads(path.read_text())
    return int(config_of_model.get("model_cfg", config_of_model)["embed_dim"])


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
