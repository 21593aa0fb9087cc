"""The work of each stage for a number of rows: requests, bytes, core-seconds and FLOPs, as intervals."""

import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from corgi.budget.rates import Interval, Rates, exactly
from corgi.latents.cost import LATENT_BYTES, autoencoder_cost, encoder_flops
from corgi.names import TRAINED_SPACES
from corgi.settings.clip import TOWER_PREFIX, TokenRef, TowerRef
from corgi.settings.models import AutoencoderSettings
from corgi.settings.recipe import Recipe
from corgi.training.cost import cost_of, decoder_cost, num_samples, upsampler_cost
from corgi.training.network_cost import latent_shape

_NOTHING = exactly(0.0)


class VisionConfig(TypedDict):
    """The parts of an image tower's config that are read; a ResNet has a list of layers, and no patches."""

    image_size: int
    width: int
    layers: int | list[int]
    patch_size: NotRequired[int]


class TextConfig(TypedDict):
    """The parts of a text tower's config that are read; a Hugging Face model has none of these."""

    context_length: int
    width: int
    layers: int


class TowerConfig(TypedDict, total=False):
    """The parts of an open_clip config that are read."""

    embed_dim: int
    vision_cfg: VisionConfig
    text_cfg: TextConfig


@dataclass(frozen=True)
class Work:
    """The work of one stage; `unknown` names what is not included because it is unknown."""

    rows: Interval
    cpu_s: Interval = _NOTHING
    flops: Interval = _NOTHING
    received_bytes: Interval = _NOTHING
    """Bytes received from the web."""
    written_bytes: Interval = _NOTHING
    waited_s: Interval = _NOTHING
    """Total time of all requests, as if one followed the other, s."""
    storage_requests: Interval = _NOTHING
    unknown: tuple[str, ...] = field(default=())


def works(recipe: Recipe, num_rows: float, rates: Rates) -> dict[str, Work]:
    """Return the work of the stages that can be counted before they run."""
    kept = rates["kept_share"] * num_rows
    return {
        "download": _download(recipe, num_rows, rates),
        "embed": _embed(recipe, kept, rates),
        "curate": Work(kept, cpu_s=kept * rates["curate_cpu_per_row"]),
        "shift": Work(kept, cpu_s=kept * rates["statistics_cpu_per_row"]),
        "pack": _pack(recipe, kept),
        **_prior(recipe),
        **_pictures(recipe, kept),
    }


def num_shards(recipe: Recipe, num_rows: float) -> int:
    """Return the number of shards for a number of rows."""
    return max(1, math.ceil(num_rows / recipe.plan.number_sample_per_shard))


def _download(recipe: Recipe, num_rows: float, rates: Rates) -> Work:
    area = (recipe.download.image_size / 256) ** 2
    return Work(
        rows=exactly(num_rows),
        cpu_s=rates["fetch_cpu_per_url"] * num_rows,
        received_bytes=rates["web_bytes_per_url"] * num_rows,
        written_bytes=rates["stored_bytes_at_256_px"] * rates["kept_share"] * num_rows * area,
        waited_s=rates["fetch_latency"] * num_rows,
        storage_requests=rates["requests_per_shard"] * num_shards(recipe, num_rows),
    )


def _prior(recipe: Recipe) -> dict[str, Work]:
    """Return the prior's training if it is on GPUs; its rows are training samples."""
    cost = cost_of(recipe) if recipe.prior.training.use_gpu else None
    if cost is None:
        return {}
    samples = exactly(float(num_samples(recipe) * len(recipe.prior.variants)))
    return {"prior": Work(samples, flops=samples * cost.training_flops)}


def _pictures(recipe: Recipe, kept: Interval) -> dict[str, Work]:
    """Return the work of the autoencoder with its latents and of the trainings of decoder and upsamplers, if it is on GPUs and can be counted."""
    trained = {
        "decoder": (recipe.decoder.training, decoder_cost(recipe)),
        **{name: (step.training, upsampler_cost(recipe, name)) for name, step in recipe.upsamplers.items()},
    }
    found = _latents(recipe.autoencoder, kept)
    for stage, (training, cost) in trained.items():
        if training.use_gpu and cost is not None:
            samples = exactly(float(training.num_steps * training.global_batch))
            found[stage] = Work(samples, flops=samples * cost.training_flops)
    return found


def _latents(settings: AutoencoderSettings, kept: Interval) -> dict[str, Work]:
    training, shape = settings.training, latent_shape(settings)
    if settings.kind not in TRAINED_SPACES or not training.use_gpu or shape is None:
        return {}
    learned = training.num_steps * training.global_batch * autoencoder_cost(settings).training_flops
    flops = exactly(float(learned)) + kept * encoder_flops(settings)
    return {"autoencoder": Work(kept, flops=flops, written_bytes=kept * (LATENT_BYTES * math.prod(shape)))}


def _embed(recipe: Recipe, kept: Interval, rates: Rates) -> Work:
    flops = {ref.name: tower_flops(ref.model, ref.config) for ref in recipe.embed.towers}
    known = sum(found for found in flops.values() if found is not None)
    words = {ref.name: word_cost(ref, recipe.embed.towers, rates) for ref in recipe.embed.tokens}
    counted = [cost for cost in words.values() if cost is not None]
    dims = sum(_config(ref.model, ref.config).get("embed_dim", 512) for ref in recipe.embed.towers)
    return Work(
        rows=kept,
        cpu_s=kept
        * rates["embed_cpu_per_tower"]
        * (_num_crops(recipe) * _decoding(recipe.download.image_size)),
        flops=kept * sum((cost.flops for cost in counted), start=exactly(known)),
        written_bytes=kept * sum((cost.stored_bytes for cost in counted), start=exactly(2 * 2.0 * dims)),
        unknown=(
            *[f"the FLOPs of {name}" for name, found in flops.items() if found is None],
            *[f"the words of {name}" for name, cost in words.items() if cost is None],
        ),
    )


@dataclass(frozen=True)
class WordCost:
    """FLOPs and bytes of the token states of one caption."""

    flops: Interval
    stored_bytes: Interval


def word_cost(ref: TokenRef, towers: Sequence[TowerRef], rates: Rates) -> WordCost | None:
    """Return the cost of a caption's token states; None if nothing is known about the encoder.

    A batch is computed at the length of its longest caption, and each caption is stored at its own length, as half floats. The states
    of a tower's own text model are computed with its vector, so only their storage counts.
    """
    stored = rates["tokens_per_caption"].at_most(ref.max_tokens)
    if ref.model.startswith(TOWER_PREFIX):
        named = [tower for tower in towers if tower.name == ref.model.removeprefix(TOWER_PREFIX)]
        widths = [_config(one.model, one.config).get("text_cfg", {}).get("width") for one in named]
        return WordCost(_NOTHING, stored * (2.0 * widths[0])) if widths and widths[0] else None
    encoder = rates.encoder(ref.model)
    if encoder is None:
        return None
    computed = Interval(stored.high, float(ref.max_tokens))
    return WordCost(computed * encoder.parameters * 2.0, stored * (2.0 * encoder.width))


def _num_crops(recipe: Recipe) -> int:
    """Return how many different crops the towers make of a picture; a tower of unknown size is assumed to make its own."""
    sides = [
        _config(ref.model, ref.config).get("vision_cfg", {}).get("image_size") for ref in recipe.embed.towers
    ]
    return max(1, len({side for side in sides if side}) + sides.count(None))


def _decoding(side: int) -> float:
    """Return the CPU time of decoding and cropping a picture relative to one of 256 px: 2.5 at 512 px."""
    return (1 + (side / 256) ** 2) / 2


def _pack(recipe: Recipe, kept: Interval) -> Work:
    dims = sum(_config(ref.model, ref.config).get("embed_dim", 512) for ref in recipe.embed.towers)
    return Work(kept, written_bytes=kept * (2 * 2.0 * dims), unknown=("the CPU time of gathering rows",))


def tower_flops(model: str, config: str | None) -> float | None:
    """Return the FLOPs of one picture and one caption through a CLIP model of transformers, two per multiply-add.

    None if the image tower is not a transformer, such as a ResNet.
    """
    told = _config(model, config)
    vision, text = told.get("vision_cfg", {}), told.get("text_cfg", {})
    patch, layers = vision.get("patch_size"), vision.get("layers")
    if not isinstance(patch, int) or not isinstance(layers, int) or "width" not in text:
        return None
    patches = (vision["image_size"] // patch) ** 2
    picture = 2.0 * patches * 3 * patch**2 * vision["width"]
    return (
        picture
        + _transformer_flops(patches + 1, vision["width"], layers)
        + _transformer_flops(text["context_length"], text["width"], text["layers"])
    )


def _transformer_flops(length: int, width: int, layers: int) -> float:
    return 2.0 * layers * (12 * length * width**2 + 2 * length**2 * width)


def _config(model: str, config: str | None) -> TowerConfig:
    spec = importlib.util.find_spec("open_clip")  # not imported, since it imports torch
    folder = Path(spec.origin).parent / "model_configs" if spec and spec.origin else Path()
    path = Path(config) if config else folder / f"{model.replace('/', '-')}.json"
    if not path.is_file():
        return {}
    told = json.loads(path.read_text())
    return told.get("model_cfg", told)
