"""The decoder stage: trains the diffusion model from a CLIP image embedding to latents; it needs no captions."""

import json
from collections.abc import Mapping

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.feeding.captions import drawn_caption
from corgi.feeding.noise import Noise
from corgi.feeding.packed_rows import LatentRows
from corgi.feeding.packed_set import PackedSet
from corgi.feeding.rows import NeighbourRows, neighbours_among
from corgi.flow import screen
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.models.picture_decoder import to_bytes
from corgi.names import UNetConfig
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
    WEAK,
    check_network,
    embedding_table,
    network_of,
    painter_of,
    process_of,
)
from corgi.training.denoising import DenoisingObjective, condition_table
from corgi.training.ema import apart
from corgi.training.finetune import check_peft, merged, read_init, start
from corgi.training.init_from import UNET_CONFIG, Init, InitRun, decoder_init, facts_of, place_of
from corgi.training.objective import SecondAverage
from corgi.training.pseudo_text import PseudoText
from corgi.training.regression import fitted_regression
from corgi.training.trainer import final_weights, train
from corgi.training.training import Training
from corgi.training.words import check_words, cut_or_pad, stored_words

CAPTION, DROP_CAPTION = 6, 7
"""Noise streams of a training sample, in addition to those of `corgi.training.denoising`."""
SHOWN_PICTURES = 8


def run(context: Context) -> list[ShardTask]:
    """Train the decoder and commit its averaged weights and metric lines.

    Raises:
        InputError: no train picture is selected, there is no val picture to rank checkpoints by, or the initial weights do not fit.
        SettingsError: the network does not fit the latents, or reads word encodings that were not stored.

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
    """Commit the trained weights, those of autoguidance's weak network if any, the metrics, and the config of the diffusers U-Net it started from, if any."""
    state, weak = map(merged, apart(load_file(final_weights(training))))
    parameters = sum(value.numel() for value in state.values())
    num_rows = int(str(facts["train_pictures"]))
    with context.store.attempt(task) as attempt:
        attempt.write_bytes("decoder", ".safetensors", save(state))
        if weak:
            attempt.write_bytes(WEAK, ".safetensors", save(weak))
        attempt.write_bytes("metrics", ".jsonl", training.metrics_file.read_bytes())
        if config is not None:
            attempt.write_bytes(UNET_CONFIG, ".json", (json.dumps(config, sort_keys=True) + "\n").encode())
        attempt.commit(RowCounts(rows_in=num_rows, kept=num_rows), facts={"parameters": parameters, **facts})


def _say_other_latents(init: Init | None, model: ShardManifest) -> None:
    """Print a line if the decoder to start from was trained on the latents of another autoencoder."""
    if isinstance(init, InitRun) and init.made.facts.get(AUTOENCODER_FACT) != model.digest:
        screen.current().say(
            f"decoder: the decoder of run {init.run.name} was trained on the latents of another autoencoder"
        )


def check_neighbours(settings: DecoderSettings, num_pictures: int) -> None:
    """Check that there are enough train pictures for `neighbours`, not counting the one that is painted.

    Raises:
        SettingsError: there are too few.

    """
    if settings.neighbours >= num_pictures:
        raise SettingsError(
            f"decoder.neighbours={settings.neighbours} needs more than {num_pictures} train pictures; tables are safe; lower it or name a longer list"
        )


class LatentObjective(DenoisingObjective[DecoderSettings]):
    """The diffusion loss on standardised latents, conditioned on a slightly noisy image embedding; a subclass provides the rows."""

    def __init__(
        self,
        settings: DecoderSettings,
        table: ShiftTable,
        latent_shape: tuple[int, ...],
        pseudo_text: PseudoText,
        init: tuple[dict[str, Tensor], UNetConfig | None] | None = None,
        regression: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take the parts that every denoiser has, and those of a decoder.

        `latent_shape` is the shape of one latent, `init` the weights and config that `read_init` returned, and `regression` the
        weights that `fitted_regression` returned.
        """
        self.latent_shape, self.regression = latent_shape, regression
        self.initial, self.pretrained = init or ({}, None)
        super().__init__(settings, pseudo_text, table, process_of(settings, latent_shape))

    @property
    def has_words(self) -> bool:
        """Return whether the network reads the word encodings of a caption."""
        return bool(self.settings.num_text_tokens)

    def model(self) -> nn.Module:
        """Build the network with its initial weights.

        Raises:
            InputError: the trained weights to start from do not fit it.

        """
        network = network_of(self.settings, self.latent_shape, self.table, self.pretrained)
        if self.regression is not None:
            network.get_submodule("regression").load_state_dict(self.regression)
        start(network, self.initial, self.settings)
        return network

    def second_average(self) -> SecondAverage | None:
        """Return the average of the weights that autoguidance guides away from; None if the settings do not ask for one."""
        weak = self.settings.weak
        if weak is None:
            return None
        return SecondAverage(weak.ema_decay, round(weak.until * self.settings.training.num_steps))

    def sample(
        self, batch: dict[str, Tensor], noise: Noise, augment: bool
    ) -> tuple[Float[Tensor, "batch latent"], dict[str, Tensor]]:
        """Return the latents, and the network's inputs besides the embedding: latents of neighbours and words of a caption."""
        seen = {"neighbours": batch["neighbours"]} if self.settings.neighbours else {}
        return batch["latent"], {**seen, **self._words(batch, noise, augment)}

    def _words(self, batch: dict[str, Tensor], noise: Noise, augment: bool) -> dict[str, Tensor]:
        """Return the words of one full caption per picture (drawn in training, the first on val) and, in training, which captions are dropped."""
        if not self.has_words:
            return {}
        words = cut_or_pad(batch["full_words"], self.settings.num_text_tokens)
        if not augment:
            return {"words": words[:, 0]}
        drawn = drawn_caption(words, batch["num_full"], noise.uniform(CAPTION))
        return {"words": drawn, "drop_words": noise.uniform(DROP_CAPTION) < self.settings.text_drop_prob}


class DecoderObjective(LatentObjective):
    """A decoder's loss on the kept train pictures of a run."""

    def __init__(
        self,
        root: str,
        stages: dict[str, str],
        settings: Mapping[str, object],
        init: Mapping[str, str] | None = None,
        prepared: str = "",
    ) -> None:
        """Open the stages `pack`, `shift` and `autoencoder`, and `embed` for words, by their manifests' paths; arguments are JSON.

        The embeddings' mean and scale on train are those that the shift stage measured. `init` locates the weights that the
        network starts from; if these include a mean and scale, they are used instead. `prepared` is the path of the file that
        `pseudo_text.prepare` wrote.

        Raises:
            InputError: the latents were encoded by another autoencoder, or trained weights cannot be read.

        """
        parsed = DecoderSettings.model_validate(settings)
        self.store = store = Store(root)
        self.packed = PackedSet.open(root, stages["pack"])
        prepared_text = pseudo_text.load(parsed, prepared)
        table, initial = condition_table(store, stages["shift"], prepared_text), read_init(init or {})
        if "embedding_table.mean" in initial[0]:
            table = embedding_table(initial[0])
        self.words = stored_words(self.packed, stages.get("embed"), parsed)
        model, *self.latents = store.listed(store.read_stage(stages["autoencoder"]))
        for made in self.latents:
            check_same_autoencoder(made, model)
        self.autoencoder = store.read_shard(model.path)
        shape = load_autoencoder(store, self.autoencoder).latent_shape
        number, rows = parsed.neighbours, LatentRows(self.packed, self.latents, Split.TRAIN)
        regression = fitted_regression(rows, table, parsed) if parsed.regression else None
        super().__init__(parsed, table, shape, prepared_text, initial, regression)
        self.neighbours = neighbours_among(rows, number, parsed.neighbour_max_cosine) if number else None

    def rows(self, split: Split = Split.TRAIN) -> LatentRows | NeighbourRows:
        """Return the kept pictures of a split."""
        rows = LatentRows(self.packed, self.latents, split, self.words)
        return rows if self.neighbours is None else NeighbourRows(rows, self.neighbours)

    def show(self, model: nn.Module) -> Shown:
        """Return a grid: the first val pictures' latents decoded by the autoencoder, and below them what is painted from their embeddings."""
        batch = self.first_val(SHOWN_PICTURES)
        if not batch:
            return Shown()
        autoencoder = load_autoencoder(self.store, self.autoencoder).to(batch["latent"].device)
        painter = painter_of(self.settings, model, self.process, autoencoder, self.neighbours)
        seeds = range(len(batch["image"]))
        painted = painter.sample(batch["image"], seeds, self.settings.sample_steps, self.settings.guidance)
        rows = [to_bytes(autoencoder.decode(batch["latent"])), painted]
        grid = torch.cat([torch.cat(list(row), dim=1) for row in rows], dim=0)
        return Shown(pictures={"samples": grid.cpu().numpy()})
