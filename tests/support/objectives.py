"""The objectives of prior and decoder over the tables of a tiny run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save
from torch import Tensor

from corgi.feeding.feed import Rows, joined, tensors
from corgi.feeding.pack import PackShards
from corgi.models.autoencoder import LinearAutoencoder
from corgi.models.spatial_autoencoder import PixelCodec, SpatialAutoencoder
from corgi.settings.decoder import DecoderSettings, DiTSettings, UNetSettings, UpsamplerSettings
from corgi.settings.models import PriorSettings
from corgi.settings.section import digest
from corgi.tables import schema
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.schema import caption_tokens
from corgi.tables.store import ShardTask
from corgi.training.decoder import DecoderObjective
from corgi.training.prior import PriorObjective
from corgi.training.upsampler import UpsamplerObjective
from tests.support.tables import DIM, Output, close_stage, commit_stage, tiny_run

PRIOR = PriorSettings(width=32, depth=1, heads=2, num_timesteps=50, coarse_caption_share=0.5)
DECODER = DecoderSettings(
    width=16,
    depth=1,
    num_timesteps=50,
    sample_steps=5,
    unet=UNetSettings(widths=(16,), attention=(0,), heads=2),
    dit=DiTSettings(heads=2, patch=1),
)
UPSAMPLER = UpsamplerSettings(
    low_side=8,
    side=16,
    crop=8,
    width=16,
    depth=1,
    num_timesteps=50,
    sample_steps=3,
    unet=UNetSettings(widths=(8, 16), attention=(), middle_attention=False, heads=2),
    dit=DiTSettings(heads=2, patch=4),
)
SIDE, LATENT = 4, 6
ENCODER, WORD_WIDTH = "words", 6
WITH_WORDS: dict[str, Any] = {"num_text_tokens": 4, "encoding_dim": WORD_WIDTH}
EMBED_SETTINGS = {"embed": {"tokens": [{"name": ENCODER, "model": "package:x"}]}}


def shift_parameters() -> dict[str, Tensor]:
    """Return what the shift stage commits, of three clusters."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.nn.functional.normalize(torch.randn(3, DIM, generator=generator), dim=-1)
    return {
        "mean": mean,
        "scale": torch.full((3, DIM), 0.2),
        "count": torch.tensor([4, 4, 4]),
        "global_mean": mean.mean(0),
        "global_scale": torch.full((DIM,), 0.3),
    }


def commit_pack(run: Run) -> None:
    """Commit the training table of what is embedded and curated, by the stage's own maker."""
    root, made = str(run.store.root.parent), []
    for embed, curate in zip(run.shards("embed"), run.shards("curate"), strict=True):
        key = digest(["pack", embed.digest, curate.digest])
        inputs = {"embed": (embed.path,), "curate": (curate.path,)}
        made.append(PackShards().make(ShardTask(root, "pack", embed.shard, key, 1, "c0de" * 8, {}, inputs)))
    close_stage(run, "pack", made, ["embed", "curate"])


def _commit_shift(run: Run) -> None:
    files = {"shift": (".safetensors", save(shift_parameters()))}
    output = Output(RowCounts(rows_in=9, kept=9), files=files, settings={"shift": {"scale": 2.0}})
    commit_stage(run, "shift", {"all": output}, ["embed", "curate"])


def prior_run(root: Path) -> Run:
    """Return a run that is ready to train a prior."""
    run = tiny_run(root)
    commit_pack(run)
    _commit_shift(run)
    return run


def prior_objective(run: Run, variant: str = "shifted", **changes: Any) -> PriorObjective:
    """Return the objective of a variant, its settings changed."""
    stages = {stage: run.stages()[stage].path for stage in ("pack", "shift", "embed")}
    settings = PRIOR.model_copy(update=changes).model_dump(mode="json")
    return PriorObjective(str(run.store.root.parent), stages, variant, settings)


def word_state(uid: str, ordinal: int) -> np.ndarray:
    """Return token states that say whose they are: every token holds the caption's own number."""
    length = 1 + (int(uid[:4], 16) + ordinal) % 6
    number = 1 + int(uid[:4], 16) % 97 + 100 * ordinal
    return np.full((length, WORD_WIDTH), number, np.float16)


def add_words(run: Run) -> None:
    """Commit the embeddings again, with token states of each caption."""
    outputs = {}
    for shard in run.shards("embed"):
        tables = {name: run.store.read(shard, name) for name in ("image_embeddings", "caption_embeddings")}
        named = tables["caption_embeddings"].select(["uid", "ordinal"])
        states = [word_state(row["uid"], row["ordinal"]).tolist() for row in named.to_pylist()]
        layout = caption_tokens({ENCODER: WORD_WIDTH})
        column = pa.array(states, layout.field(f"{ENCODER}/tokens").type)
        tables["caption_tokens"] = pa.table([*named.columns, column], schema=layout)
        outputs[shard.shard] = Output(shard.rows, tables, settings=EMBED_SETTINGS)
    commit_stage(run, "embed", outputs, ["download"])
    commit_pack(run)


def linear_autoencoder() -> LinearAutoencoder:
    """Return a small orthogonal autoencoder."""
    torch.manual_seed(0)
    components = torch.linalg.qr(torch.randn(3 * SIDE * SIDE, LATENT)).Q.mT
    return LinearAutoencoder(torch.full((3 * SIDE * SIDE,), 0.5), components, torch.ones(LATENT))


def decoder_run(root: Path) -> Run:
    """Return a run that is ready to train a decoder; its latents are by uid, as 0.1 committed them."""
    run = prior_run(root)
    state = {name: value.contiguous() for name, value in linear_autoencoder().state_dict().items()}
    files = {"autoencoder": (".safetensors", save(state))}
    settings = {"autoencoder": {"kind": "linear"}}
    _commit_latents(run, Output(RowCounts(rows_in=1, kept=1), files=files, settings=settings), LATENT)
    return run


def pixel_run(root: Path) -> Run:
    """Return a run that is ready to train a decoder on pixels of SIDE x SIDE."""
    run = prior_run(root)
    state = SpatialAutoencoder(PixelCodec(), SIDE).state_dict()
    config = json.dumps({"image_size": SIDE, "codec": {}}).encode()
    files = {"autoencoder": (".safetensors", save(state)), "config": (".json", config)}
    settings = {"autoencoder": {"kind": "pixels"}}
    _commit_latents(run, Output(RowCounts(rows_in=1, kept=1), files=files, settings=settings), 3 * SIDE**2)
    return run


def _commit_latents(run: Run, model: Output, dim: int) -> None:
    """Commit an autoencoder, with latents of so many values."""
    outputs = {"model": model}
    for shard in run.shards("download"):
        images = run.store.read(shard, "images", ["uid", "split"]).to_pylist()
        rows = [{**row, "latent": [float(n % 3 - 1)] * dim} for n, row in enumerate(images)]
        table = pa.Table.from_pylist(rows, schema=schema.latents(dim))
        outputs[shard.shard] = Output(RowCounts(rows_in=len(rows), kept=len(rows)), {"latents": table})
    commit_stage(run, "autoencoder", outputs, ["download"])


def decoder_arguments(run: Run, settings: DecoderSettings = DECODER) -> dict[str, Any]:
    """Return what the stage tells the workers of a decoder's training."""
    names = ("pack", "shift", "autoencoder", *(("embed",) if settings.num_text_tokens else ()))
    stages = {stage: run.stages()[stage].path for stage in names}
    return {
        "root": str(run.store.root.parent),
        "stages": stages,
        "settings": settings.model_dump(mode="json"),
    }


def decoder_objective(run: Run, prepared: str = "", **changes: Any) -> DecoderObjective:
    """Return the decoder's objective, its settings changed; the latents count as spatial for a network that needs it."""
    arguments = decoder_arguments(run, DECODER.model_copy(update=changes))
    made = DecoderObjective(**arguments, prepared=prepared)
    if made.settings.network != "mlp":
        made.latent_shape = (LATENT, 1, 1)
    return made


def upsampler_objective(run: Run, **changes: Any) -> UpsamplerObjective:
    """Return the objective of a step of a cascade over a run that is ready to train a prior, its settings changed."""
    stages = {stage: run.stages()[stage].path for stage in ("download", "pack", "shift")}
    settings = UPSAMPLER.model_copy(update=changes).model_dump(mode="json")
    return UpsamplerObjective(str(run.store.root.parent), stages, settings)


def every_row(rows: Rows) -> dict[str, Tensor]:
    """Return all rows of all units by column, half floats as fp32, word encodings left out."""
    units = [rows.load(unit) for unit, count in enumerate(rows.counts) if count]
    names = [name for name, values in units[0].items() if not name.endswith("_words")]
    found = tensors(rows, {name: joined([unit[name] for unit in units]) for name in names})
    return {
        name: values.float() if values.dtype == torch.float16 else values for name, values in found.items()
    }
