"""The spaces stage: the embeddings unchanged or off centre, and the statistics from which each arm derives its (mu, Sigma)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import save as save_tensors

from corgi.comparison.arms import cluster_counts, low_rank_counts
from corgi.feeding.feed import Rows, first_rows
from corgi.feeding.rows import PriorRows, listed_shards
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.settings.compare import CompareSettings, SpaceName
from corgi.settings.errors import InputError
from corgi.statistics.clusters import nearest, spherical_kmeans
from corgi.statistics.low_rank import (
    Sketches,
    low_rank_factor,
    shrunk_sketches,
    sketch_basis,
    sketch_width,
)
from corgi.statistics.moments import cluster_moments
from corgi.statistics.shift import ShiftParameters, choice_accuracy, matched_scale, shift_parameters
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from corgi.training.data_checks import check_spread
from corgi.unit_vectors import unit_rows

FLOOR_SHARE = 1e-3
_IMAGE, _TEXT = 0, 1
"""Whether the fixed direction of pictures or of captions is drawn."""

Vectors = Float[np.ndarray, "*rows dim"]


@dataclass(frozen=True)
class Space:
    """A map from unit embeddings to unit embeddings: the identity, or a shift towards a fixed direction, which differs for text and pictures."""

    name: SpaceName
    offset: float

    def image(self, rows: Vectors) -> Vectors:
        """Return picture embeddings in this space."""
        return self._moved(rows, _IMAGE)

    def text(self, rows: Vectors) -> Vectors:
        """Return caption embeddings in this space."""
        return self._moved(rows, _TEXT)

    def _moved(self, rows: Vectors, whose: int) -> Vectors:
        """Return sqrt(1 - w^2) z + w u, normalised."""
        if self.name == "own":
            return rows
        drawn = np.random.Generator(np.random.Philox(key=[whose, 0])).standard_normal(rows.shape[-1])
        direction = drawn / np.linalg.norm(drawn)
        moved = np.sqrt(1 - self.offset**2) * rows + self.offset * direction
        return unit_rows(moved).astype(np.float32)


class SpaceRows:
    """Rows of the prior's training, moved into a space."""

    def __init__(self, rows: PriorRows, space: Space) -> None:
        """Wrap the rows of a split."""
        self._rows, self._space = rows, space
        self.counts: Sequence[int] = rows.counts

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return the unit's columns, with image and caption embeddings moved."""
        loaded = self._rows.load(unit)
        moved = {name: self._space.text(loaded[name]) for name in ("full", "coarse")}
        return {**loaded, "image": self._space.image(loaded["image"]), **moved}


def run(context: Context) -> list[ShardTask]:
    """Commit `statistics` of every space."""
    settings: CompareSettings = context.recipe.compare
    tasks = [context.task(name, {"space": name}) for name in settings.spaces]
    arguments = {"stages": {name: context.inputs[name].path for name in ("embed", "curate")}}
    make_pending(context, SpaceShards, tasks, Pool(settings.num_actors), "spaces", arguments)
    return tasks


class SpaceShards:
    """Fit the statistics of one space in one call."""

    def __init__(self, stages: Mapping[str, str]) -> None:
        """Take the paths of the manifests of `embed` and `curate`."""
        self.stages = stages

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit statistics.safetensors and facts.json of the task's space."""
        settings = CompareSettings.model_validate(task.settings["compare"])
        space = Space(task.payload["space"], settings.offset)
        shards = listed_shards(task.root, self.stages)
        train = _whole(SpaceRows(PriorRows(shards, Split.TRAIN), space), settings.max_fit_rows)
        held_out = _whole(SpaceRows(PriorRows(shards, Split.TEST), space), settings.max_fit_rows)
        arrays, facts = statistics(train, held_out, settings)
        rows = len(train["image"])
        with Store(task.root).attempt(task) as attempt:
            attempt.write_bytes("statistics", ".safetensors", save_tensors(arrays))
            attempt.write_bytes("facts", ".json", json.dumps(facts, indent=1).encode())
            return attempt.commit(RowCounts(rows_in=rows, kept=rows), facts={"space": space.name})


def statistics(
    train: dict[str, np.ndarray], held_out: dict[str, np.ndarray], settings: CompareSettings
) -> tuple[dict[str, np.ndarray], dict[str, float | dict[str, float | None]]]:
    """Return as arrays, for each k, mean, scale, count, matched c and the low-rank factors that arms need; and facts for the report."""
    image, text, caption = _coarse(train)
    check_spread(image)
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, float | dict[str, float | None]] = {
        "norm of the mean": float(np.linalg.norm(image.mean(0)))
    }
    for k in cluster_counts(settings):
        if k > len(image):
            raise InputError(
                f"compare: an arm has {k} clusters, but there are {len(image)} captioned train pictures; tables are safe; leave it out of compare.arms"
            )
        own, _ = nearest(image, spherical_kmeans(image, k, seed=settings.seed))
        parameters = shift_parameters(cluster_moments(image, own, k), settings.shrinkage_count, FLOOR_SHARE)
        arrays |= {f"k{k}.mean": _single(parameters.mean), f"k{k}.scale": _single(parameters.scale)}
        arrays[f"k{k}.count"] = parameters.count.astype(np.int64)
        if k in low_rank_counts(settings):
            arrays |= _low_rank(image, own, parameters, settings)
        facts[f"k = {k}"] = k_facts = _matched(image, text, caption, parameters)
        for rule in ("text", "own"):
            arrays[f"k{k}.matched_{rule}"] = np.array(k_facts[f"matched c, cluster by {rule}"], np.float32)
        pictures = nearest(held_out["image"], parameters.mean)[0]
        k_facts["held-out captions that pick their picture's cluster"] = choice_accuracy(
            held_out["full"][:, 0], pictures, parameters.mean
        )
        k_facts["variance left within clusters"] = float(
            (parameters.variance.sum(1) * parameters.count).sum() / len(image)
        )
    return arrays, facts


def _whole(rows: Rows, limit: int) -> dict[str, np.ndarray]:
    """Return the rows of whole units in order until there are at least `limit`; InputError if there are none."""
    columns = first_rows(rows, limit)
    if not columns:
        raise InputError(
            "compare: no captioned picture is held out or trained on; tables are safe; name a longer list or raise plan.test_share"
        )
    return columns


def _coarse(rows: dict[str, np.ndarray]) -> tuple[Vectors, Vectors, Int[np.ndarray, "rows"]]:
    """Return pictures, their first coarse caption (or full one if they have none), and a number for each distinct caption."""
    has_coarse = rows["num_coarse"] > 0
    text = np.where(has_coarse[:, None], rows["coarse"][:, 0], rows["full"][:, 0])
    caption = np.unique(text, axis=0, return_inverse=True)[1].reshape(-1)
    return rows["image"], text, caption


def _matched(
    image: Vectors, text: Vectors, caption: Int[np.ndarray, "rows"], parameters: ShiftParameters
) -> dict[str, float | None]:
    """Return c for both ways of choosing a cluster: by the text, the same for all pictures of a caption, and by the picture itself."""
    by_text, _ = nearest(text, parameters.mean)
    own, _ = nearest(image, parameters.mean)
    k = len(parameters.mean)
    return {
        "matched c, cluster by text": matched_scale(image, caption, parameters.scale[by_text]) or 1.0,
        "matched c, cluster by own": matched_scale(image, caption * k + own, parameters.scale[own]) or 1.0,
    }


def _low_rank(
    image: Vectors, own: Int[np.ndarray, "rows"], parameters: ShiftParameters, settings: CompareSettings
) -> dict[str, np.ndarray]:
    """Return each cluster's factor and the scale of the remaining diagonal, shrunk as the diagonal variances are."""
    k, dim = parameters.mean.shape
    rank = min(settings.rank, dim)
    basis = sketch_basis(dim, sketch_width(dim, rank), settings.seed)
    clusters = Sketches.of(image, own, range(k), basis)
    whole = Sketches.of(image, np.zeros(len(image), np.int64), range(1), basis)
    shrunk = shrunk_sketches(clusters, whole, settings.shrinkage_count)
    floor = FLOOR_SHARE * float(np.median(parameters.global_scale**2))
    roots = [low_rank_factor(shrunk[i], parameters.scale[i] ** 2, basis, rank, floor) for i in range(k)]
    factor, rest = (np.stack(parts) for parts in zip(*roots, strict=True))
    return {f"k{k}.factor": _single(factor), f"k{k}.rest": _single(rest)}


def _single(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)
