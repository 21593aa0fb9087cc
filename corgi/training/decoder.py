"""The decoder stage: trains CLIP image embedding -> latents by diffusion; it needs no caption."""

import json
from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from corgi.diffusion.loss import from_x0, prediction_weight, squared_error
from corgi.diffusion.shifted import ShiftTable
from corgi.feeding.captions import drawn_caption
from corgi.feeding.feed import dense, rows_between
from corgi.feeding.noise import Noise
from corgi.feeding.packed_rows import LatentRows
from corgi.feeding.packed_set import PackedSet
from corgi.feeding.rows import NeighbourRows, neighbours_among
from corgi.flow import screen
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.models.denoiser import perturb_embedding
from corgi.models.picture_decoder import to_bytes
from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import SettingsError
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from corgi.tracking.tracked_run import Shown
from corgi.training import pseudo_text
from corgi.training.autoencoder import AUTOENCODER_FACT, check_same_autoencoder, load_autoencoder
from corgi.training.data_checks import check_pictures, check_val
from corgi.training.decoder_network import (
    check_network,
    embedding_table,
    network_of,
    painter_of,
    process_of,
)
from corgi.training.finetune import check_peft, merged, read_init, start
from corgi.training.init_from import UNET_CONFIG, Init, InitRun, decoder_init, facts_of, place_of
from corgi.training.ranks import own_rows, rows_of_all
from corgi.training.trainer import final_weights, train
from corgi.training.training import Training
from corgi.training.words import check_words, cut_or_pad, stored_words

TIMESTEP, EPS, DROP, PERTURBATION, LEVEL = range(5)
CAPTION, DROP_CAPTION = 6, 7
"""Draws of one training sample, each its own stream of the noise; 5 is that of pseudo text."""

SHOWN_PICTURES = 8
MAX_VAL_PICTURES = 4096
"""Val pictures that an evaluation measures, at most."""
VAL_BATCH = 64
"""Val pictures in one call of the network."""


def run(context: Context) -> list[ShardTask]:
    """Train the decoder and commit its averaged weights and metric lines.

    Raises:
        InputError: no train picture is selected, no val picture ranks checkpoints, or the weights to start from do not fit.
        SettingsError: the network does not fit the latents, or reads word encodings that were not made.

    """
    task = context.task("all")
    if not context.pending([task]):
        return [task]
    settings: DecoderSettings = context.recipe.decoder
    model = context.store.read_shard(context.entries("autoencoder")[0].path)
    init = decoder_init(context.recipe)
    check_peft(settings)
    check_words(context, settings, "decoder")
    config = None if init is None else init.config
    check_network(settings, load_autoencoder(context.store, model).latent_shape, config)
    _say_other_latents(init, model)
    packed = PackedSet.open(task.root, context.inputs["pack"].path)
    num_pictures = packed.num_rows(Split.TRAIN)
    check_pictures(num_pictures)
    check_neighbours(settings, num_pictures)
    check_val(packed.num_rows(Split.VAL), settings.training)
    connect(context.recipe)
    training = _training(context, task, init)
    train([training], context.recipe)
    facts = {"train_pictures": num_pictures, AUTOENCODER_FACT: model.digest, **facts_of(init)}
    _commit(context, task, training, config, facts)
    return [task]


def _training(context: Context, task: ShardTask, init: Init | None) -> Training:
    settings: DecoderSettings = context.recipe.decoder
    work = context.work_folder(task)
    arguments = {
        "root": task.root,
        "stages": {name: manifest.path for name, manifest in context.inputs.items()},
        "settings": settings.model_dump(mode="json"),
        **pseudo_text.arguments(settings, task.root, context.inputs["pack"].path, work),
    }
    return Training(
        name="decoder",
        folder=str(work / "decoder"),
        objective=DecoderObjective,
        arguments=arguments if init is None else {**arguments, "init": place_of(init)},
        settings=settings.training,
        tracking=context.recipe.tracking,
        group=context.run.folder.name,
        seed=settings.seed,
    )


def _commit(
    context: Context,
    task: ShardTask,
    training: Training,
    config: Mapping[str, object] | None,
    facts: Mapping[str, object],
) -> None:
    """Commit what was trained, and the config of a U-Net of diffusers that it started from."""
    state = merged(load_file(final_weights(training)))
    parameters = sum(value.numel() for value in state.values())
    num_rows = int(str(facts["train_pictures"]))
    with context.store.attempt(task) as attempt:
        attempt.write_bytes("decoder", ".safetensors", save(state))
        attempt.write_bytes("metrics", ".jsonl", training.metrics_file.read_bytes())
        if config is not None:
            attempt.write_bytes(UNET_CONFIG, ".json", (json.dumps(config, sort_keys=True) + "\n").encode())
        attempt.commit(RowCounts(rows_in=num_rows, kept=num_rows), facts={"parameters": parameters, **facts})


def _say_other_latents(init: Init | None, model: ShardManifest) -> None:
    """Say that the decoder to start from knows the latents of another autoencoder."""
    if isinstance(init, InitRun) and init.made.facts.get(AUTOENCODER_FACT) != model.digest:
        screen.current().say(
            f"decoder: the decoder of run {init.run.name} knows the latents of another autoencoder"
        )


def check_neighbours(settings: DecoderSettings, num_pictures: int) -> None:
    """Compare the neighbours asked for with the train pictures there are besides the one that is painted.

    Raises:
        SettingsError: they are too many.

    """
    if settings.neighbours >= num_pictures:
        raise SettingsError(
            f"decoder.neighbours={settings.neighbours} and there are {num_pictures} train pictures; tables are safe; ask for fewer or name a longer list"
        )


class DecoderObjective:
    """The error of diffusion on standardised latents, conditioned on a slightly noisy image embedding."""

    def __init__(
        self,
        root: str,
        stages: dict[str, str],
        settings: Mapping[str, object],
        init: Mapping[str, str] | None = None,
        prepared: str = "",
    ) -> None:
        """Open the stages `pack`, `shift` and `autoencoder`, and `embed` for words, by their manifests' paths; arguments are JSON.

        The embeddings' mean and scale on train are those that the shift stage measured. `init` says where the weights are that
        the network starts from; it keeps the mean and scale that are among them. `prepared` is the path of what
        `pseudo_text.prepare` wrote.

        Raises:
            InputError: latents are those of another autoencoder, or trained weights cannot be read.

        """
        self.settings = DecoderSettings.model_validate(settings)
        self.store = store = Store(root)
        self.packed = PackedSet.open(root, stages["pack"])
        (shift,) = store.listed(store.read_stage(stages["shift"]))
        measured = load_file(store.path(shift, "shift"))
        moments = measured["global_mean"].double().numpy(), measured["global_scale"].double().numpy()
        self.pseudo_text = pseudo_text.load(self.settings, prepared)
        mean, std = self.pseudo_text.moments(*moments)
        self.table = ShiftTable.standardised(torch.from_numpy(mean).float(), torch.from_numpy(std).float())
        self.initial, self.pretrained = read_init(init or {})
        if "embedding_table.mean" in self.initial:
            self.table = embedding_table(self.initial)
        self.words = stored_words(self.packed, stages.get("embed"), self.settings)
        model, *self.latents = store.listed(store.read_stage(stages["autoencoder"]))
        for made in self.latents:
            check_same_autoencoder(made, model)
        self.autoencoder = store.read_shard(model.path)
        self.latent_shape = load_autoencoder(store, self.autoencoder).latent_shape
        self.process = process_of(self.settings, self.latent_shape)
        asked = self.settings.neighbours, self.settings.neighbour_max_cosine
        rows = LatentRows(self.packed, self.latents, Split.TRAIN)
        self.neighbours = neighbours_among(rows, *asked) if asked[0] else None

    def place(self, device: torch.device) -> None:
        """Move the embeddings' mean and scale and the process to a device."""
        self.table, self.process = self.table.to(device), self.process.to(device)
        self.pseudo_text.to(device)

    def model(self) -> nn.Module:
        """Build the network as its training starts.

        Raises:
            InputError: trained weights do not fit it.

        """
        network = network_of(self.settings, self.latent_shape, self.table, self.pretrained)
        start(network, self.initial, self.settings)
        return network

    def rows(self, split: Split = Split.TRAIN) -> LatentRows | NeighbourRows:
        """Return the kept pictures of a split."""
        rows = LatentRows(self.packed, self.latents, split, self.words)
        return rows if self.neighbours is None else NeighbourRows(rows, self.neighbours)

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean over rows of the prediction's squared error, weighted (eq. 25)."""
        t = noise.integers(1, self.process.schedule.num_steps + 1, TIMESTEP)
        return self._error(model, batch, noise, t).mean(), {}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the weighted error on val at fixed noise, each rank that of its share of the rows; empty without val rows."""
        rows, device = self.rows(Split.VAL), self.table.mean.device
        own = own_rows(min(MAX_VAL_PICTURES, sum(rows.counts)))
        val = rows_between(rows, own)
        errors = [torch.zeros(0, device=device)]
        for first in range(0, len(own), VAL_BATCH):
            batch = self._placed(val, first, VAL_BATCH)
            positions = own.start + torch.arange(first, first + len(batch["image"]))
            noise = Noise(self.settings.seed, positions, device)
            t = noise.integers(1, self.process.schedule.num_steps + 1, TIMESTEP)
            with torch.no_grad():
                errors.append(self._error(model.eval(), batch, noise, t, augment=False).float())
        everything = rows_of_all(torch.cat(errors))
        return {"loss": float(everything.mean())} if len(everything) else {}

    def show(self, model: nn.Module) -> Shown:
        """Return a grid: what the autoencoder makes of the first val pictures' latents, and what is painted for their embeddings below."""
        batch = self._placed(rows_between(self.rows(Split.VAL), range(SHOWN_PICTURES)), 0, SHOWN_PICTURES)
        if not batch:
            return Shown()
        autoencoder = load_autoencoder(self.store, self.autoencoder).to(batch["latent"].device)
        painter = painter_of(self.settings, model, self.process, autoencoder, self.neighbours)
        seeds = range(len(batch["image"]))
        painted = painter.sample(batch["image"], seeds, self.settings.sample_steps, self.settings.guidance)
        rows = [to_bytes(autoencoder.decode(batch["latent"])), painted]
        grid = torch.cat([torch.cat(list(row), dim=1) for row in rows], dim=0)
        return Shown(pictures={"samples": grid.cpu().numpy()})

    def _placed(self, columns: dict[str, np.ndarray], first: int, number: int) -> dict[str, Tensor]:
        """Return some rows of columns on the device, fp32."""
        device = self.table.mean.device
        return {
            name: torch.from_numpy(dense(values[first : first + number])).to(device).float()
            for name, values in columns.items()
        }

    def _error(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise, t: Tensor, augment: bool = True
    ) -> Tensor:
        batch = {name: value.float() for name, value in batch.items()}  # half floats as they are stored
        latent, cluster, kind = batch["latent"], torch.zeros_like(t), self.settings.prediction
        z_t = self.process.q_sample(latent, t, noise.normal((latent.shape[1],), EPS), cluster)
        drop = (noise.uniform(DROP) < self.settings.embedding_drop_prob) & augment
        image = self.pseudo_text(batch["image"], noise)
        embedding, told = self._perturbed(image, noise) if augment else (image, {})
        target = from_x0(self.process, latent, z_t, t, cluster, kind)
        seen = {"neighbours": batch["neighbours"]} if self.settings.neighbours else {}
        seen |= self._words(batch, noise, augment)
        error = squared_error(target, model(z_t, t, embedding, drop, **told, **seen))
        name = None if self.settings.loss_weight == "none" else self.settings.loss_weight
        return prediction_weight(self.process.schedule, t, kind, name).to(error.dtype) * error

    def _words(self, batch: dict[str, Tensor], noise: Noise, augment: bool) -> dict[str, Tensor]:
        """Return the words of one full caption of each picture, on val of the first, and which captions are dropped."""
        if self.words is None:
            return {}
        words = cut_or_pad(batch["full_words"], self.settings.num_text_tokens)
        if not augment:
            return {"words": words[:, 0]}
        drawn = drawn_caption(words, batch["num_full"], noise.uniform(CAPTION))
        return {"words": drawn, "drop_words": noise.uniform(DROP_CAPTION) < self.settings.text_drop_prob}

    def _perturbed(self, embedding: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the embedding with its share of noise, and the share where the network is told."""
        share = self.settings.conditioning_noise**2
        if share == 0:
            return embedding, {}
        known = self.settings.noise_level_known
        level = share * noise.uniform(LEVEL) if known else torch.full_like(embedding[:, 0], share)
        drawn = noise.normal((embedding.shape[1],), PERTURBATION)
        return perturb_embedding(embedding, drawn, level, self.table), {"level": level} if known else {}
