"""The contest stage: every arm trained in every space with every seed, many trainings in one worker group."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import TypedDict

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from corgi.baselines import BASELINES, Baseline
from corgi.comparison.arms import info_nce, prior_settings, scale_of, table_of
from corgi.comparison.spaces import Space, SpaceRows
from corgi.diffusion.choice import ClusterChoice
from corgi.feeding.noise import Noise
from corgi.feeding.rows import PriorRows, listed_shards
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.models.device import given_device
from corgi.models.text_prior import TextPrior
from corgi.settings.compare import CompareSettings, SpaceName
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from corgi.training.prior_loss import EPS, PriorLoss, PriorParts, network_of
from corgi.training.trainer import final_weights, train
from corgi.training.training import Training


def run(context: Context) -> list[ShardTask]:
    """Train what is missing, seed by seed, and commit each arm's averaged weights."""
    settings: CompareSettings = context.recipe.compare
    spaces = {entry.shard: entry for entry in context.entries("spaces")}
    tables = {name: context.entries(name) for name in ("embed", "curate")}
    tasks: dict[int, list[ShardTask]] = {}
    for number, space, arm in product(range(settings.num_seeds), settings.spaces, settings.arms):
        seed = settings.seed + number
        payload = {"space": space, "arm": arm, "seed": seed}
        task = context.task(f"{space}.{arm}.{seed}", payload, {**tables, "spaces": [spaces[space]]})
        tasks.setdefault(seed, []).append(task)
    for of_seed in tasks.values():
        _train(context, context.pending(of_seed))
    return [task for of_seed in tasks.values() for task in of_seed]


def _train(context: Context, pending: Sequence[ShardTask]) -> None:
    """Train the arms of one seed to their final weights in one worker group, then commit them."""
    if not pending:
        return
    connect(context.recipe)
    trainings = [_training(context, task) for task in pending]
    train(trainings, context.recipe)
    for task, training in zip(pending, trainings, strict=True):
        objective = training.build()
        rows = sum(objective.rows().counts)
        facts = {**task.payload, "parameters": sum(p.numel() for p in objective.model().parameters())}
        with context.store.attempt(task) as attempt:
            attempt.write_bytes("prior", ".safetensors", final_weights(training).read_bytes())
            attempt.write_bytes("log", ".jsonl", training.metrics_file.read_bytes())
            attempt.commit(RowCounts(rows_in=rows, kept=rows), facts=facts)


def _training(context: Context, task: ShardTask) -> Training:
    arm, settings = BASELINES[task.payload["arm"]], context.recipe.compare
    return Training(
        name=f"compare-{task.shard}",
        folder=str(context.work_folder(task) / "training"),
        objective=OnePassObjective if arm.one_pass else ArmObjective,
        arguments={
            "root": task.root,
            "stages": {name: context.inputs[name].path for name in ("embed", "curate")},
            "space": task.inputs["spaces"][0],
            "contestant": task.payload,
            "settings": settings.model_dump(mode="json"),
        },
        settings=settings.training,
        tracking=context.recipe.tracking,
        group=context.run.folder.name,
        seed=task.payload["seed"],
    )


class Contestant(TypedDict):
    """The payload of an arm's task."""

    space: SpaceName
    arm: str
    seed: int


class ArmObjective(PriorLoss):
    """The prior's objective for one arm in one space: rows are moved into the space, and the arm determines (mu, Sigma)."""

    def __init__(
        self,
        root: str,
        stages: Mapping[str, str],
        space: str,
        contestant: Contestant,
        settings: Mapping[str, object],
    ) -> None:
        """Open a space by its shard's path; the stages `embed` and `curate` are opened by their manifests' paths when rows are needed.

        Arguments are JSON.
        """
        self.compare = CompareSettings.model_validate(settings)
        self.space = Space(contestant["space"], self.compare.offset)
        self.arm: Baseline = BASELINES[contestant["arm"]]
        self.root, self.stages = root, stages
        store = Store(root)
        statistics = load_tensors(store.path(store.read_shard(space), "statistics").read_bytes())
        choice = ClusterChoice(self.arm.choice, scale=scale_of(self.arm, statistics))
        super().__init__(
            PriorParts(prior_settings(self.arm, self.compare), table_of(self.arm, statistics), choice)
        )

    @cached_property
    def shards(self) -> list[EmbeddedShard]:
        """Return the shards of the embedded set."""
        return listed_shards(self.root, self.stages)

    def split(self, split: Split) -> SpaceRows:
        """Return a split's rows in this arm's space."""
        return SpaceRows(PriorRows(self.shards, split), self.space)

    def prior(self, weights: dict[str, Tensor]) -> TextPrior:
        """Return the trained arm as a prior, on this process's device."""
        network = network_of(self.settings, self.table, self.variant)
        network.load_state_dict(weights)
        return TextPrior(network.eval(), self.process, self.choice).to(given_device())


class OnePassObjective(ArmObjective):
    """A regression on caption and noise: the diffusion prior at t = T only, where z_T contains no information about z_0.

    A contrastive arm adds ECLIPSE's second term, `corgi.comparison.arms.info_nce`.
    """

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the squared distance, d times its mean over dimensions, and the arm's contrastive term."""
        z_0, text = batch["image"], self.caption(batch, noise)
        cluster = torch.zeros(len(text), dtype=torch.int64, device=text.device)
        last = torch.full_like(cluster, self.process.schedule.num_steps)
        start = self.process.start(noise.normal((z_0.shape[1],), EPS), cluster)
        prediction = model(start, last, text, cluster).to(torch.float32)
        error = (prediction - z_0).square().sum(dim=-1).mean()
        cosine = torch.nn.functional.cosine_similarity(z_0, prediction.detach()).mean()
        if not self.arm.contrastive:
            return error, {"x0_cosine": cosine}
        contrastive = info_nce(prediction, text, self.compare.contrastive_temperature)
        return error + self.compare.contrastive_weight * contrastive, {
            "x0_cosine": cosine,
            "contrastive": contrastive,
        }
