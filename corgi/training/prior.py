"""The prior stage: trains caption -> CLIP image embedding, one network a choice of (mu, Sigma)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from corgi.diffusion.loss import loss_weight, squared_error, weighted_loss
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.flow.cluster import connect
from corgi.flow.dag import Context
from corgi.models.prior import Prior, PriorConfig
from corgi.models.text_prior import Sampling, TextPrior
from corgi.settings.models import PriorSettings
from corgi.settings.training import TrackingSettings
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from corgi.training.noise import Noise
from corgi.training.rows import EmbeddedShards, PriorRows
from corgi.training.trainer import final_weights, train
from corgi.training.training import Training

CAPTION_KIND, CAPTION_INDEX, TIMESTEP, EPS, DROP = range(5)
"""Draws of one training sample, each its own stream of the noise."""

MAX_VAL_ROWS = 512


def run(context: Context) -> list[ShardTask]:
    """Train every variant in one worker group and commit their averaged weights and metric lines."""
    task = context.task("all")
    if not context.pending([task]):
        return [task]
    settings: PriorSettings = context.recipe.prior
    work = context.store.shard_folder(task.stage, task.key) / "work"
    trainings = [
        _training(
            task, variant, settings, str(work / variant), context.recipe.tracking, context.run.folder.name
        )
        for variant in settings.variants
    ]
    connect(context.recipe)
    train(trainings, context.recipe)
    with context.store.attempt(task) as attempt:
        for variant, training in zip(settings.variants, trainings, strict=True):
            attempt.write_bytes(f"prior_{variant}", ".safetensors", final_weights(training).read_bytes())
            attempt.write_bytes(f"metrics_{variant}", ".jsonl", training.metrics_file.read_bytes())
        rows = PriorRows(embedded_shards(task), Split.TRAIN)
        network = network_of(settings, ShiftTable.ddpm(_dim(rows)), "shifted")
        facts = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "train_pictures": sum(rows.counts),
        }
        attempt.commit(RowCounts(rows_in=sum(rows.counts), kept=sum(rows.counts)), facts=facts)
    return [task]


def embedded_shards(task: ShardTask) -> EmbeddedShards:
    """Return the embeddings and selection a task was given."""
    return EmbeddedShards(task.root, task.inputs["embed"], task.inputs["curate"])


def table_of(variant: str, shift: Mapping[str, Tensor], c: float) -> ShiftTable:
    """Return (mu, Sigma) of a variant: one choice in the same code, nothing else differs."""
    dim = shift["mean"].shape[1]
    if variant == "shifted":
        mean, scale, count = shift["mean"].float(), shift["scale"].float(), shift["count"].long()
        roots = {name: c * shift[name].float() for name in ("factor", "cholesky") if name in shift}
        if roots:
            return ShiftTable(mean, c * scale, count=count, **roots)
        return ShiftTable.clusters(mean, scale, c, count=count)
    if variant == "standardised":
        return ShiftTable.standardised(shift["global_mean"].float(), shift["global_scale"].float())
    return ShiftTable.dalle2(dim) if variant == "dalle2" else ShiftTable.ddpm(dim)


def network_of(settings: PriorSettings, table: ShiftTable, variant: str) -> Prior:
    """Build an untrained network; only the shifted one may see its cluster as a token."""
    config = PriorConfig(
        dim=table.dim,
        text_dim=table.dim,
        width=settings.width,
        depth=settings.depth,
        heads=settings.heads,
        cluster_token=settings.cluster_token and variant == "shifted",
        causal=settings.causal,
        standardise=settings.standardise,
    )
    return Prior(config, table)


def load_prior(store: Store, prior: ShardManifest, shift: ShardManifest, variant: str) -> TextPrior:
    """Return a trained prior ready to sample, from committed and verified weights."""
    settings = PriorSettings.model_validate(prior.settings["prior"])
    table = shift_table(store, shift, variant)
    network = network_of(settings, table, variant)
    network.load_state_dict(load_file(store.path(prior, f"prior_{variant}")), strict=False)
    return TextPrior(
        network.eval(), ShiftedDiffusion(table, Schedule.named(settings.schedule, settings.num_timesteps))
    )


def shift_table(store: Store, shift: ShardManifest, variant: str) -> ShiftTable:
    """Return a variant's (mu, Sigma) out of the committed shift parameters."""
    chosen = shift.settings["shift"]["scale"]
    c = shift.facts["scale"] if chosen == "matched" else chosen
    return table_of(variant, load_file(store.path(shift, "shift")), float(c))


class PriorObjective:
    """The weighted x0 error of shifted diffusion (eq. 14) on kept train pictures."""

    def __init__(
        self, root: str, inputs: dict[str, list[str]], variant: str, settings: dict[str, Any]
    ) -> None:
        """Open the tables of a task; arguments are JSON."""
        self.settings = PriorSettings.model_validate(settings)
        self.variant = variant
        store = Store(root)
        self.shards = EmbeddedShards(root, tuple(inputs["embed"]), tuple(inputs["curate"]))
        self.table = shift_table(store, store.read_shard(inputs["shift"][0]), variant)
        schedule = Schedule.named(self.settings.schedule, self.settings.num_timesteps)
        self.process = ShiftedDiffusion(self.table, schedule)

    def model(self) -> nn.Module:
        """Build the untrained network."""
        return network_of(self.settings, self.table, self.variant)

    def rows(self) -> PriorRows:
        """Return the kept train pictures that have a full caption."""
        return PriorRows(self.shards, Split.TRAIN)

    def loss(self, model: Any, batch: dict[str, Tensor], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted squared distance, d times eq. 14: unit vectors then give numbers of order one."""
        z_0, text = batch["image"], self.caption(batch, noise)
        cluster = TextPrior(model, self.process).cluster(text)
        t = noise.integers(1, self.process.schedule.num_steps + 1, TIMESTEP)
        z_t = self.process.q_sample(z_0, t, noise.normal((z_0.shape[1],), EPS), cluster)
        drop = noise.uniform(DROP) < self.settings.text_drop_prob
        estimate = model(z_t, t, text, cluster, None, drop)
        error = squared_error(z_0, estimate) * z_0.shape[1]
        weight = loss_weight(self.process.schedule, t, self.settings.loss_weight)
        with torch.no_grad():
            cosine = F.cosine_similarity(z_0, estimate.float()).mean()
        return weighted_loss(error, weight), {"x0_cosine": cosine}

    def caption(self, batch: dict[str, Tensor], noise: Noise) -> Float[Tensor, "batch dim"]:
        """Draw one caption a picture: coarse with the recipe's share where there is one, full otherwise."""
        share = self.settings.coarse_caption_share
        coarse = (noise.uniform(CAPTION_KIND) < share) & (batch["num_coarse"] > 0)
        place = noise.uniform(CAPTION_INDEX)
        drawn = torch.where(
            coarse[:, None],
            _pick(batch["coarse"], batch["num_coarse"], place),
            _pick(batch["full"], batch["num_full"], place),
        )
        return drawn

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return cosines of sampled embeddings on val, under DALLE2-pytorch's names; empty without val rows."""
        rows = PriorRows(self.shards, Split.VAL)
        loaded = [rows.load(unit) for unit in range(len(rows.counts)) if rows.counts[unit]]
        if not loaded:
            return {}
        image = torch.cat([torch.from_numpy(unit["image"]) for unit in loaded])[:MAX_VAL_ROWS]
        text = torch.cat([torch.from_numpy(unit["full"][:, 0]) for unit in loaded])[:MAX_VAL_ROWS]
        assert isinstance(model, Prior)
        prior = TextPrior(model.eval(), self.process)
        sampled = prior.sample(
            text, range(len(text)), Sampling(self.settings.sample_steps, self.settings.sampler)
        )
        return {
            "similarity_to_image": float((sampled * image).sum(-1).mean()),
            "similarity_to_text": float((sampled * text).sum(-1).mean()),
            "difference_from_baseline": float(((sampled * text).sum(-1) - (image * text).sum(-1)).mean()),
            "similarity_to_unrelated_text": float((sampled * text.roll(1, 0)).sum(-1).mean()),
        }


def _pick(
    captions: Float[Tensor, "batch slots dim"], count: Int[Tensor, "batch"], place: Float[Tensor, "batch"]
) -> Float[Tensor, "batch dim"]:
    """Return the caption at a place in 0..1 among the first `count` of each row."""
    index = (place * count).long().clamp(max=captions.shape[1] - 1)
    return captions[torch.arange(len(captions)), index]


def _training(
    task: ShardTask,
    variant: str,
    settings: PriorSettings,
    folder: str,
    tracking: TrackingSettings,
    group: str,
) -> Training:
    return Training(
        name=f"prior-{variant}",
        folder=folder,
        objective="corgi.training.prior:PriorObjective",
        arguments={
            "root": task.root,
            "inputs": {k: list(v) for k, v in task.inputs.items()},
            "variant": variant,
            "settings": settings.model_dump(mode="json"),
        },
        settings=settings.training,
        tracking=tracking,
        group=group,
        seed=settings.seed,
    )


def _dim(rows: PriorRows) -> int:
    unit = next(unit for unit, count in enumerate(rows.counts) if count)
    return rows.load(unit)["image"].shape[1]
