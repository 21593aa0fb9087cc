"""The prior stage: trains the model from a caption to a CLIP image embedding, one network per choice of (mu, Sigma)."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file

from corgi.baselines import BASELINES
from corgi.diffusion.choice import ClusterChoice
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion
from corgi.feeding.packed_rows import CaptionedRows
from corgi.feeding.packed_set import PackedSet
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.models.device import given_device
from corgi.models.text_prior import TextPrior
from corgi.settings.models import PriorSettings
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from corgi.training.data_checks import check_captioned_rows, check_val_rows
from corgi.training.init_from import facts_of, place_of, prior_init
from corgi.training.prior_loss import PriorLoss, PriorParts, network_of
from corgi.training.prior_sizes import config_of, num_weights
from corgi.training.shift_table import shift_scale, shift_table
from corgi.training.trainer import final_weights, train
from corgi.training.training import Training
from corgi.training.words import check_words, stored_words


def run(context: Context) -> list[ShardTask]:
    """Train every variant in one worker group and commit their averaged weights and metric lines.

    Raises:
        InputError: no selected train picture has a caption to learn from, or no val picture has a caption to rank checkpoints by.
        SettingsError: the recipe asks for word encodings that were not stored.

    """
    task = context.task("all")
    if not context.pending([task]):
        return [task]
    settings, init = context.recipe.prior, prior_init(context.recipe)
    check_words(context, settings)
    packed = PackedSet.open(task.root, context.inputs["pack"].path)
    rows = CaptionedRows(packed, Split.TRAIN)
    check_captioned_rows(packed, rows)
    check_val_rows(CaptionedRows(packed, Split.VAL), settings.training)
    work = context.work_folder(task)
    trainings = [
        _training(context, task, variant, work / variant, place_of(init)) for variant in settings.variants
    ]
    connect(context.recipe)
    train(trainings, context.recipe)
    with context.store.attempt(task) as attempt:
        for variant, training in zip(settings.variants, trainings, strict=True):
            attempt.write_bytes(f"prior_{variant}", ".safetensors", final_weights(training).read_bytes())
            attempt.write_bytes(f"metrics_{variant}", ".jsonl", training.metrics_file.read_bytes())
        first = settings.variants[0]
        table = shift_table(context.store, context.store.read_shard(context.entries("shift")[0].path), first)
        config = config_of(settings, table.dim, table.num_clusters, first)
        facts = {
            "parameters": num_weights(config, table.num_clusters),
            "train_pictures": sum(rows.counts),
            **facts_of(init),
        }
        attempt.commit(RowCounts(rows_in=sum(rows.counts), kept=sum(rows.counts)), facts=facts)
    return [task]


def choice_of(settings: PriorSettings, variant: str, c: float) -> ClusterChoice:
    """Return how a variant's captions choose their cluster; only the run's own variant has several clusters."""
    if not BASELINES[variant].is_of_the_run:
        return ClusterChoice()
    return ClusterChoice(settings.cluster_choice, settings.choice_draws, settings.choice_temperature, scale=c)


def load_prior(store: Store, prior: ShardManifest, shift: ShardManifest, variant: str) -> TextPrior:
    """Return a trained prior ready to sample on the given device, from committed and verified weights."""
    settings = PriorSettings.recorded(prior.settings["prior"])
    table = shift_table(store, shift, variant)
    network = network_of(settings, table, variant)
    network.load_state_dict(load_file(store.path(prior, f"prior_{variant}")))
    process = ShiftedDiffusion(table, Schedule.named(settings.schedule, settings.num_timesteps))
    made = TextPrior(network.eval(), process, choice_of(settings, variant, shift_scale(shift)))
    return made.to(given_device())


class PriorObjective(PriorLoss):
    """The prior's loss on the kept train pictures of a run."""

    def __init__(
        self,
        root: str,
        stages: dict[str, str],
        variant: str,
        settings: Mapping[str, object],
        init: Mapping[str, str] | None = None,
    ) -> None:
        """Open the stages `pack` and `shift`, and `embed` for a prior with words, by their manifests' paths.

        `init` locates the weights to start from, as `place_of` returns it. All arguments are JSON.
        """
        parsed = PriorSettings.model_validate(settings)
        store = Store(root)
        shift = store.read_shard(store.read_stage(stages["shift"]).shards[0].path)
        self.packed = PackedSet.open(root, stages["pack"])
        self.states = stored_words(self.packed, stages.get("embed"), parsed)
        table, choice = shift_table(store, shift, variant), choice_of(parsed, variant, shift_scale(shift))
        super().__init__(PriorParts(parsed, table, choice, variant, self.states is not None, init or {}))

    def split(self, split: Split) -> CaptionedRows:
        """Return the kept pictures of a split that have a full caption."""
        return CaptionedRows(self.packed, split, self.states)


def _training(
    context: Context, task: ShardTask, variant: str, folder: Path, init: Mapping[str, str]
) -> Training:
    settings: PriorSettings = context.recipe.prior
    return Training(
        name=f"prior-{variant}",
        folder=str(folder),
        objective=PriorObjective,
        arguments={
            "root": task.root,
            "stages": {name: manifest.path for name, manifest in context.inputs.items()},
            "variant": variant,
            "settings": settings.model_dump(mode="json"),
            **({"init": init} if init else {}),
        },
        settings=settings.training,
        tracking=context.recipe.tracking,
        group=context.run.folder.name,
        seed=settings.seed,
    )
