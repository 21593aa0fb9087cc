"""The scores stage: each trained arm sampled with every sampler and number of steps, and measured against the true pictures."""

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load as load_tensors

from corgi.comparison.contest import ArmObjective, Contestant
from corgi.comparison.spaces import Space
from corgi.evaluation.measured import Pictures, read_pictures
from corgi.evaluation.metrics import (
    ScoreRow,
    Scores,
    frechet_distance,
    paired_cosine,
    retrieval,
    softmax_average,
    squared_mmd,
)
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.models.embedder import Sampling
from corgi.models.text_prior import TextPrior
from corgi.settings.compare import CompareSettings, ScoreSettings
from corgi.settings.errors import InputError
from corgi.statistics.two_sample import two_sample_cosine
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store

RANKS = (1, 10)
Vectors = Float[np.ndarray, "rows dim"]


def run(context: Context) -> list[ShardTask]:
    """Commit `scores` of every trained arm."""
    settings: ScoreSettings = context.recipe.score
    spaces = {entry.shard: entry for entry in context.entries("spaces")}
    tables = {name: context.entries(name) for name in ("download", "embed", "curate")}
    tasks = [
        context.task(
            entry.shard,
            inputs={**tables, "spaces": [spaces[entry.shard.split(".")[0]]], "contest": [entry]},
        )
        for entry in context.entries("contest")
    ]
    pool = Pool(settings.num_actors, gpus=settings.gpus_per_actor)
    make_pending(context, ScoreShards, tasks, pool, "scores")
    return tasks


class ScoreShards:
    """Measure one arm per call; what depends only on the space is computed once per actor."""

    def __init__(self) -> None:
        """Start without any space loaded."""
        self._judges: dict[str, Judge] = {}

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit scores.json, a list of rows."""
        store = Store(task.root)
        trained = store.read_shard(task.inputs["contest"][0])
        compare = CompareSettings.model_validate(task.settings["compare"])
        settings = ScoreSettings.model_validate(task.settings["score"])
        facts = trained.facts
        contestant: Contestant = {"space": facts["space"], "arm": facts["arm"], "seed": facts["seed"]}
        space = contestant["space"]
        if space not in self._judges:
            self._judges[space] = judge(store, task.inputs, Space(space, compare.offset), settings)
        statistics, values = task.inputs["spaces"][0], compare.model_dump(mode="json")
        objective = ArmObjective(task.root, {}, statistics, contestant, values)  # its rows are not read
        prior = objective.prior(load_tensors(store.path(trained, "prior").read_bytes()))
        rows: list[ScoreRow] = [
            {**contestant, **self._judges[space].score(prior, sampling)}
            for sampling in samplings(objective, settings)
        ]
        with store.attempt(task) as attempt:
            attempt.write_bytes("scores", ".json", json.dumps(rows, indent=1).encode())
            return attempt.commit(RowCounts(rows_in=len(rows), kept=len(rows)), facts=contestant)


def samplings(objective: ArmObjective, settings: ScoreSettings) -> list[Sampling]:
    """Return every way in which an arm is sampled: a one-pass arm in one step, others by candidates, sampler and steps."""
    arm = objective.arm
    if arm.one_pass:
        return [Sampling(1, settings.samplers[0])]
    return [
        Sampling(steps, sampler, num_candidates=count)
        for count in arm.candidates
        for sampler in settings.samplers
        for steps in settings.steps
    ]


@dataclass(frozen=True)
class Judge:
    """The true pictures of one space: held-out captions with one image per concept, and coarse captions with several each."""

    pictures: Pictures
    space: Space
    settings: ScoreSettings

    @cached_property
    def held_out(self) -> tuple[Vectors, Vectors]:
        """Return captions and pictures, one per held-out concept, in this space."""
        rows = self.pictures.one_a_group(Split.TEST, self.settings.max_captions)
        if len(rows) < 2:
            raise InputError(
                "compare: fewer than two concepts are held out; tables are safe; name a longer list or raise plan.test_share"
            )
        return self.space.text(self.pictures.text[rows]), self.space.image(self.pictures.image[rows])

    @cached_property
    def coarse(self) -> list[tuple[Float[np.ndarray, "dim"], Vectors]]:
        """Return each coarse caption's embedding and its true images; InputError for fewer than two captions."""
        rows_by_caption = self.pictures.by_coarse(self.settings.min_word_pictures)
        if len(rows_by_caption) < 2:
            raise InputError(
                "compare: fewer than two coarse captions are shared by enough pictures; tables are safe; lower score.min_word_pictures or mark coarse captions (plan.caption_kind_col)"
            )
        return [
            (self.space.text(self.pictures.coarse_text[rows[0]]), self.space.image(self.pictures.image[rows]))
            for rows in rows_by_caption.values()
        ]

    def coarse_images(self, part: int) -> Vectors:
        """Draw with replacement as many true images per coarse caption as there are samples; each `part` is a different draw."""
        generator = np.random.default_rng([0, part])
        each = self.settings.samples_per_caption
        return np.concatenate([images[generator.choice(len(images), each)] for _, images in self.coarse])

    def score(self, prior: TextPrior, sampling: Sampling) -> Scores:
        """Return how the prior was sampled and every measure: held-out captions are compared by pair, coarse captions by distribution."""
        text, image = self.held_out
        sampled = prior.sample(_tensor(text), range(len(text)), sampling).cpu().numpy()
        each = self.settings.samples_per_caption
        texts = np.repeat(np.stack([text for text, _ in self.coarse]), each, axis=0)
        drawn = prior.sample(_tensor(texts), range(len(texts)), sampling).cpu().numpy()
        retrieved = retrieval(sampled, image, RANKS)
        spread = two_sample_cosine(drawn.reshape(len(self.coarse), each, -1), each="group")
        assert spread is not None  # every caption has at least two samples
        return {
            "sampler": sampling.sampler,
            "steps": sampling.steps,
            "candidates": sampling.num_candidates,
            "cosine": paired_cosine(sampled, image),
            "R@1": retrieved["R@1"],
            "R@10": retrieved["R@10"],
            "two_sample_cosine": spread,
            "frechet": frechet_distance(drawn, self.coarse_images(0)),
            "mmd": squared_mmd(drawn, self.coarse_images(0)),
        }

    def truth(self) -> dict[str, float]:
        """Return the scores of perfect samples for the coarse captions."""
        first, second = self.coarse_images(0), self.coarse_images(1)
        cosine = two_sample_cosine([images for _, images in self.coarse], each="group")
        assert cosine is not None  # every coarse caption is shared by several images
        return {
            "words": len(self.coarse),
            "held-out concepts": len(self.held_out[0]),
            "two_sample_cosine": cosine,
            "frechet": frechet_distance(second, first),
            "mmd": squared_mmd(second, first),
        }

    def references(self) -> dict[str, dict[str, float]]:
        """Return the measures of references without training: the text itself, the nearest train caption's picture, the softmax average."""
        text, image = self.held_out
        train = self.pictures.train
        train_text = self.space.text(self.pictures.text[train])
        train_image = self.space.image(self.pictures.image[train])
        nearest = train_image[(text @ train_text.T).argmax(1)]
        average = softmax_average(text, train_text, train_image, self.settings.softmax_temperature)
        references = {
            "text embedding": text,
            "nearest caption's picture": nearest,
            "softmax average": average,
        }
        return {
            name: {"cosine": paired_cosine(rows, image), **retrieval(rows, image, RANKS)}
            for name, rows in references.items()
        }


def judge(store: Store, inputs: dict[str, tuple[str, ...]], space: Space, settings: ScoreSettings) -> Judge:
    """Return the judge of a space, with the pictures of a task's tables."""
    torch.set_num_threads(1)
    paths = zip(inputs["embed"], inputs["curate"], inputs["download"], strict=True)
    shards = (EmbeddedShard(store.location, embed, embed, curate, images) for embed, curate, images in paths)
    return Judge(read_pictures(shards, settings.max_pictures), space, settings)


def _tensor(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32))
