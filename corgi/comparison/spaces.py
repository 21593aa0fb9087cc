"""The spaces stage: the embeddings as they are or off centre, and the statistics each arm takes its (mu, Sigma) from."""

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
"""Whose fixed direction is drawn."""

Vectors = Float[np.ndarray, "*rows dim"]


@dataclass(frozen=True)
class Space:
    """A map of unit embeddings to unit embeddings: the identity, or towards a fixed direction, another for text than for pictures."""

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
        """Return what the rows hold, images and captions moved."""
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
    """Return for each k mean, scale, count and matched c, the low-rank roots asked for, and what is worth telling."""
    image, text, caption = _coarse(train)
    check_spread(image)
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, float | dict[str, float | None]] = {
        "norm of the mean": float(np.linalg.norm(image.mean(0)))
    }
    for k in cluster_counts(settings):
        if k > len(image):
            raise InputError(
                f"compare: an arm has {k} clusters and there are {len(image)} captioned train pictures; tables are safe; leave it out of compare.arms"
            )
        own, _ = nearest(image, spherical_kmeans(image, k, seed=settings.seed))
        found = shift_parameters(cluster_moments(image, own, k), settings.shrinkage_count, FLOOR_SHARE)
        arrays |= {f"k{k}.mean": _single(found.mean), f"k{k}.scale": _single(found.scale)}
        arrays[f"k{k}.count"] = found.count.astype(np.int64)
        if k in low_rank_counts(settings):
            arrays |= _low_rank(image, own, found, settings)
        facts[f"k = {k}"] = told = _matched(image, text, caption, found)
        for rule in ("text", "own"):
            arrays[f"k{k}.matched_{rule}"] = np.array(told[f"matched c, cluster by {rule}"], np.float32)
        pictures = nearest(held_out["image"], found.mean)[0]
        told["held-out captions that pick their picture's cluster"] = choice_accuracy(
            held_out["full"][:, 0], pictures, found.mean
        )
        told["variance left within clusters"] = float(
            (found.variance.sum(1) * found.count).sum() / len(image)
        )
    return arrays, facts


def _whole(rows: Rows, limit: int) -> dict[str, np.ndarray]:
    """Return the rows of whole units in order until there are enough; InputError when there is none."""
    found = first_rows(rows, limit)
    if not found:
        raise InputError(
            "compare: no captioned picture is held out or trained on; tables are safe; name a longer list or raise plan.test_share"
        )
    return found


def _coarse(rows: dict[str, np.ndarray]) -> tuple[Vectors, Vectors, Int[np.ndarray, "rows"]]:
    """Return pictures, their first coarse caption (full where there is none) and a number for each different one."""
    has = rows["num_coarse"] > 0
    text = np.where(has[:, None], rows["coarse"][:, 0], rows["full"][:, 0])
    caption = np.unique(text, axis=0, return_inverse=True)[1].reshape(-1)
    return rows["image"], text, caption


def _matched(
    image: Vectors, text: Vectors, caption: Int[np.ndarray, "rows"], found: ShiftParameters
) -> dict[str, float | None]:
    """Return c by both ways to a cluster: the text's, shared by all pictures of a caption, and the picture's own."""
    by_text, _ = nearest(text, found.mean)
    own, _ = nearest(image, found.mean)
    k = len(found.mean)
    return {
        "matched c, cluster by text": matched_scale(image, caption, found.scale[by_text]) or 1.0,
        "matched c, cluster by own": matched_scale(image, caption * k + own, found.scale[own]) or 1.0,
    }


def _low_rank(
    image: Vectors, own: Int[np.ndarray, "rows"], found: ShiftParameters, settings: CompareSettings
) -> dict[str, np.ndarray]:
    """Return factor and the rest's scale of each cluster, shrunk as the diagonal is."""
    k, dim = found.mean.shape
    rank = min(settings.rank, dim)
    basis = sketch_basis(dim, sketch_width(dim, rank), settings.seed)
    clusters = Sketches.of(image, own, range(k), basis)
    whole = Sketches.of(image, np.zeros(len(image), np.int64), range(1), basis)
    shrunk = shrunk_sketches(clusters, whole, settings.shrinkage_count)
    floor = FLOOR_SHARE * float(np.median(found.global_scale**2))
    roots = [low_rank_factor(shrunk[i], found.scale[i] ** 2, basis, rank, floor) for i in range(k)]
    factor, rest = (np.stack(parts) for parts in zip(*roots, strict=True))
    return {f"k{k}.factor": _single(factor), f"k{k}.rest": _single(rest)}


def _single(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)
