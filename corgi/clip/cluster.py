"""The shift stage: streams the train embeddings, fits k clusters, and commits (mu_k, sigma_k), statistics and plots."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from corgi.clip import plots
from corgi.clip.passes import (
    Arrays,
    ShardRef,
    assigned,
    closest,
    conditioned,
    judged,
    moments_of,
    over_shards,
    sampled,
)
from corgi.clip.shift_file import safetensors_bytes
from corgi.clip.vectors import NORMALISATION, tower_names
from corgi.data.image import decode_stored
from corgi.flow.cluster import connect
from corgi.flow.dag import Context
from corgi.settings.clip import ShiftSettings
from corgi.settings.errors import InputError
from corgi.settings.section import digest
from corgi.statistics.clusters import nearest, spherical_kmeans
from corgi.statistics.moments import Moments, merged
from corgi.statistics.shift import (
    ShiftParameters,
    choice_accuracy,
    low_rank_parameters,
    matched_scale,
    shift_parameters,
    spectrum,
    two_sample_cosine,
)
from corgi.tables.manifest import RowCounts
from corgi.tables.store import ShardTask, Store

CONTACT_CLUSTERS, CONTACT_PICTURES = 16, 8
CONTACT_SHARDS = 4
"""Shards whose pictures and captions stand for all where every shard would be too many."""
MAX_SPECTRUM_ROWS = 50_000


@dataclass(frozen=True)
class Findings:
    """What the passes found: parameters, the moments behind them, and what they are judged by."""

    parameters: ShiftParameters
    moments: Moments
    centroids: Float[np.ndarray, "k dim"]
    sample: Float[np.ndarray, "n dim"]
    judged: Arrays
    conditioned: Arrays


def run(context: Context) -> list[ShardTask]:
    """Commit `shift` (.safetensors), `clusters` (the moments behind it), `statistics` (.json) and `plot_*` (.png).

    Raises:
        InputError: there are fewer train pictures than clusters, or a stored vector is not finite.

    """
    task = context.task("all")
    if not context.pending([task]):
        return [task]
    settings: ShiftSettings = context.recipe.shift
    connect(context.recipe)
    refs = shard_refs(context.store, task)
    found = find(refs, settings)
    rows = int(found.parameters.count.sum())
    statistics = summary(found, settings)
    with context.store.attempt(task) as attempt:
        attempt.write_bytes("shift", ".safetensors", shift_bytes(context, found, refs[0].towers))
        attempt.write_bytes("clusters", ".safetensors", clusters_bytes(found))
        attempt.write_bytes(
            "statistics", ".json", (json.dumps(statistics, indent=1, sort_keys=True) + "\n").encode()
        )
        for name, png in drawn(refs, found).items():
            attempt.write_bytes(f"plot_{name}", ".png", png)
        attempt.commit(RowCounts(rows_in=rows, kept=rows), facts=statistics)
    return [task]


def shard_refs(store: Store, task: ShardTask) -> list[ShardRef]:
    """Return the shards of a task, its embeddings, selection and download side by side, by shard id.

    Raises:
        InputError: two shards were embedded by different towers.

    """
    inputs = {
        name: {m.shard: m for m in map(store.read_shard, task.inputs[name])}
        for name in ("download", "embed", "curate")
    }
    refs, schemas = [], []
    for shard in sorted(inputs["embed"]):
        embed = inputs["embed"][shard]
        schemas.append(store.schema(embed, "image_embeddings"))
        paths = {name: inputs[name][shard].path for name in inputs}
        refs.append(ShardRef(task.root, shard, towers=tuple(tower_names(schemas[-1])), **paths))
        if not schemas[-1].equals(schemas[0]):
            raise InputError(
                f"shards {refs[0].shard} and {shard} hold vectors of different towers; nothing was changed; run embed again with --force"
            )
    return refs


def find(refs: Sequence[ShardRef], settings: ShiftSettings) -> Findings:
    """Make the passes: sample, fit, assign, judge; partial results are merged in shard order."""
    import ray

    total = max(1, sum(Store(ref.root).read_shard(ref.embed).rows.kept for ref in refs))
    share = min(1.0, settings.max_fit_rows / total)
    parts = [part["rows"] for part in over_shards(sampled, refs, {"share": share, "seed": settings.seed})]
    sample = np.concatenate(parts).astype(np.float32)
    if len(sample) < settings.num_clusters:
        raise InputError(
            f"shift.num_clusters={settings.num_clusters} is more than the {len(sample)} train pictures k-means is fitted on; committed work is safe; lower it"
        )
    fit: Any = ray.remote(num_cpus=settings.num_threads)(spherical_kmeans)
    centroids: np.ndarray = ray.get(
        fit.remote(
            sample, settings.num_clusters, settings.num_iterations, settings.seed, settings.num_threads
        )
    )
    partial = over_shards(assigned, refs, {"centroids": centroids})
    moments = merged(moments_of(part, settings.num_clusters) for part in partial)
    parameters = shift_parameters(moments, settings.shrinkage_count, settings.floor_share)
    if settings.rank:
        parameters = _with_factor(parameters, sample, centroids, settings)
    captions = _joined(over_shards(conditioned, refs[:CONTACT_SHARDS], {}))
    return Findings(
        parameters,
        moments,
        centroids,
        sample,
        _joined(over_shards(judged, refs, {"mean": parameters.mean})),
        captions,
    )


def _with_factor(
    parameters: ShiftParameters,
    sample: Float[np.ndarray, "n dim"],
    centroids: Float[np.ndarray, "k dim"],
    settings: ShiftSettings,
) -> ShiftParameters:
    """Add the low-rank part of each Sigma, from the rows k-means was fitted on."""
    if settings.rank >= sample.shape[1]:
        raise InputError(
            f"shift.rank={settings.rank} is not below the embeddings' dimension {sample.shape[1]}; committed work is safe; lower it"
        )
    own = nearest(sample, centroids)[0]
    shrinkage, floor = settings.shrinkage_count, settings.floor_share
    return low_rank_parameters(parameters, sample, own, settings.rank, shrinkage, floor)


def summary(found: Findings, settings: ShiftSettings) -> dict[str, Any]:
    """Return the figures of statistics.json; None where nothing could be measured."""
    shift, val = found.parameters, found.judged
    rows, caption = found.conditioned["rows"].astype(np.float32), found.conditioned["caption"]
    label = np.unique(caption, return_inverse=True)[1]
    own, _ = nearest(rows, shift.mean)
    weight = shift.count / shift.count.sum()
    return {
        "num_clusters": settings.num_clusters,
        "dim": shift.mean.shape[1],
        "train_pictures": int(shift.count.sum()),
        "occupancy": {
            "smallest": int(shift.count.min()),
            "median": float(np.median(shift.count)),
            "largest": int(shift.count.max()),
            "empty": int((shift.count == 0).sum()),
        },
        "global_mean_norm": float(np.linalg.norm(shift.global_mean)),
        "global_variance": float((shift.global_scale**2).sum()),
        "within_cluster_variance": float(weight @ (shift.scale**2).sum(axis=1)),
        "val_captions": len(val["cluster"]),
        "text_to_cluster_accuracy": choice_accuracy(val["text"], val["cluster"], shift.mean),
        "val_cosine": {name: _mean(val[name]) for name in ("picture_text", "picture_mean", "text_mean")},
        "two_sample_cosine_given_caption": two_sample_cosine(rows, label),
        "scale_matched_to_captions": matched_scale(rows, label, shift.scale[own]),
    }


def shift_bytes(context: Context, found: Findings, towers: Sequence[str]) -> bytes:
    """Return shift.safetensors: float32 mean, scale, count, global_mean, global_scale, and what they were made from."""
    settings: ShiftSettings = context.recipe.shift
    shift = found.parameters
    tensors = {
        "mean": shift.mean.astype(np.float32),
        "scale": shift.scale.astype(np.float32),
        "count": shift.count.astype(np.int64),
        "global_mean": shift.global_mean.astype(np.float32),
        "global_scale": shift.global_scale.astype(np.float32),
    }
    if shift.factor is not None:
        tensors["factor"] = shift.factor.astype(np.float32)
    data = digest({name: manifest.digest for name, manifest in context.inputs.items()})
    return safetensors_bytes(
        tensors,
        {
            "towers": json.dumps(list(towers)),
            "normalisation": NORMALISATION,
            "k": str(settings.num_clusters),
            "seed": str(settings.seed),
            "data": data,
        },
    )


def clusters_bytes(found: Findings) -> bytes:
    """Return the centroids and the float64 moments: what new shards are merged into while centroids stay."""
    tensors = {
        "centroid": found.centroids,
        "count": found.moments.count,
        "mean": found.moments.mean,
        "second": found.moments.second,
    }
    return safetensors_bytes(tensors, {})


def drawn(refs: Sequence[ShardRef], found: Findings) -> dict[str, bytes]:
    """Return the figures by name."""
    half = len(found.sample) // 2
    pairs = np.einsum("nd,nd->n", found.sample[:half], found.sample[half : 2 * half])
    groups = {
        "picture, its caption (val)": found.judged["picture_text"],
        "picture, its cluster (val)": found.judged["picture_mean"],
        "caption, its picture's cluster (val)": found.judged["text_mean"],
        "two train pictures": pairs,
    }
    return {
        "occupancy": plots.occupancy(found.parameters.count),
        "spectrum": plots.spectrum(spectrum(found.sample[:MAX_SPECTRUM_ROWS])),
        "cosines": plots.cosines(groups),
        "clusters": plots.contact_sheet(_contacts(refs[:CONTACT_SHARDS], found.parameters)),
    }


def _contacts(refs: Sequence[ShardRef], shift: ShiftParameters) -> list[tuple[str, list[Image.Image]]]:
    """Return the pictures closest to the means of the largest clusters, out of the first shards."""
    clusters = np.argsort(-shift.count, kind="stable")[:CONTACT_CLUSTERS].tolist()
    arguments = {"mean": shift.mean, "clusters": clusters, "number": CONTACT_PICTURES}
    best: dict[int, list[tuple[float, str]]] = {k: [] for k in clusters}
    for part in over_shards(closest, refs, arguments):
        for k, cosine, uid in zip(part["cluster"], part["cosine"], part["uids"], strict=True):
            best[int(k)].append((-float(cosine), str(uid)))
    wanted = {k: [uid for _, uid in sorted(found)[:CONTACT_PICTURES]] for k, found in best.items()}
    stored = _stored(refs, {uid for uids in wanted.values() for uid in uids})
    return [
        (f"cluster {k}\n{shift.count[k]} pictures", [decode_stored(stored[uid]) for uid in uids])
        for k, uids in wanted.items()
    ]


def _stored(refs: Sequence[ShardRef], uids: set[str]) -> dict[str, bytes]:
    found = {}
    for ref in refs:
        store = Store(ref.root)
        table = store.read(store.read_shard(ref.download), "images", ["uid", "image"])
        for row, uid in enumerate(table["uid"].to_pylist()):
            if uid in uids:
                found[uid] = table["image"][row].as_py()
    return found


def _joined(parts: Any) -> Arrays:
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _mean(values: Float[np.ndarray, "n"]) -> float | None:
    return float(values.mean()) if len(values) else None
