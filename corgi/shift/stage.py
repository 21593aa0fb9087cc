"""The shift stage: it streams the train embeddings, fits k clusters, and commits (mu_k, sigma_k), statistics and plots."""

import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image
from safetensors.numpy import load_file

from corgi.clip.references import shift_of
from corgi.clip.vectors import NORMALISATION
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.imaging.decode import decode_stored
from corgi.settings.clip import ShiftSettings
from corgi.settings.errors import InputError
from corgi.settings.section import digest
from corgi.shift import plots
from corgi.shift.file import safetensors_bytes
from corgi.shift.fit import CONTACT_SHARDS, Earlier, Findings, find
from corgi.shift.maps import Arrays, IndexedShard, closest, over_shards
from corgi.shift.memory import check_memory
from corgi.statistics.clusters import nearest
from corgi.statistics.shift import (
    ShiftParameters,
    choice_accuracy,
    expected_choice_accuracy,
    expected_directions,
    matched_scale,
    regression_scale,
    spectrum,
)
from corgi.statistics.two_sample import groups_of, two_sample_cosine
from corgi.tables.embedded import EmbeddedShard, stored_pictures
from corgi.tables.manifest import RowCounts
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store
from corgi.tables.vectors import tower_widths

CONTACT_CLUSTERS, CONTACT_PICTURES = 16, 8
MAX_SPECTRUM_ROWS = 50_000
COSINE_BINS, MAX_CURVE_POINTS = 80, 240


def run(context: Context) -> list[ShardTask]:
    """Commit `shift` (.safetensors), the sums it was computed from (`clusters` and others), `statistics`, `curves` (.json) and `plot_*` (.png).

    Raises:
        InputError: there are fewer train pictures than clusters, a stored vector is not finite, or the run to continue
            has different towers or clusters.
        SettingsError: the stage would need more memory than the recipe allows.

    """
    settings: ShiftSettings = context.recipe.shift
    task = context.task("all")
    if not context.pending([task]):
        return [task]
    connect(context.recipe)
    refs = shard_refs(context)
    rows = sum(ref.kept for ref in refs)
    widths = tower_widths(context.store.schema(context.listed("embed")[0], "image_embeddings"))
    check_memory(settings, sum(widths.values()), rows)
    earlier = earlier_run(settings, list(widths))
    with context.store.attempt(task) as attempt:

        def save(name: str, arrays: Arrays) -> None:
            attempt.write_bytes(name, ".safetensors", safetensors_bytes(arrays, {}))

        found = find(refs, settings, earlier, save)
        statistics = summary(found, settings, [ref.identity for ref in refs])
        attempt.write_bytes("shift", ".safetensors", shift_bytes(context, found, list(widths)))
        attempt.write_bytes(
            "statistics", ".json", (json.dumps(statistics, indent=1, sort_keys=True) + "\n").encode()
        )
        for name, png in drawn(refs, found).items():
            attempt.write_bytes(f"plot_{name}", ".png", png)
        attempt.write_bytes("curves", ".json", json.dumps(curves(found)).encode())
        facts = {**statistics, "shards": [ref.identity for ref in refs], "towers": list(widths)}
        kept = int(found.parameters.count.sum())
        attempt.commit(RowCounts(rows_in=kept, kept=kept), facts=facts)
    return [task]


def earlier_run(settings: ShiftSettings, towers: Sequence[str]) -> Earlier | None:
    """Return the centroids and sums of the run that the settings continue.

    Raises:
        InputError: there is no such run, or its statistics are for different towers, clusters or another covariance.

    """
    if settings.update is None:
        return None
    store, manifest = shift_of(settings.update)
    before = ShiftSettings.recorded(manifest.settings["shift"])
    for name in ("num_clusters", "covariance", "rank", "seed"):
        if getattr(before, name) != getattr(settings, name):
            raise InputError(
                f"shift.update={settings.update} has {name} {getattr(before, name)}, but this recipe has {getattr(settings, name)}; "
                f"nothing was changed; use the same {name}, or leave shift.update out"
            )
    if manifest.facts["towers"] != list(towers):
        raise InputError(
            f"shift.update={settings.update} is for towers {', '.join(manifest.facts['towers'])}, but these vectors are from "
            f"{', '.join(towers)}; nothing was changed; leave shift.update out"
        )

    def arrays(table: str) -> Arrays:
        loaded = load_file(store.path(manifest, table))
        return {name: value for name, value in loaded.items() if name != "centroid"}

    centroids = load_file(store.path(manifest, "clusters"))["centroid"]
    return Earlier(centroids, frozenset(manifest.facts["shards"]), arrays)


def shard_refs(context: Context) -> list[IndexedShard]:
    """Return the shards sorted by name, each with its embeddings, selection and download, from the stages' indexes.

    Raises:
        InputError: two shards were embedded by different towers.

    """
    listed = {
        name: {shard.shard: shard for shard in context.listed(name)}
        for name in ("download", "embed", "curate")
    }
    names = sorted(listed["embed"])
    check_towers(context.store, [listed["embed"][name] for name in names])
    indexed = []
    for name in names:
        download, embed, curate = (listed[stage][name] for stage in listed)
        indexed.append(
            IndexedShard(
                context.store.location,
                name,
                embed=embed.path,
                curate=curate.path,
                download=download.path,
                kept=embed.rows.kept,
                identity=identity_of(embed, curate),
            )
        )
    return indexed


def identity_of(embed: ListedShard, curate: ListedShard) -> str:
    """Return a digest of what a shard's statistics depend on: the bytes of its vectors and of its selection."""
    files = [*embed.files, *curate.files]
    return digest([e.sha256 for e in files if e.table in ("image_embeddings", "selection")])


def check_towers(store: Store, embedded: Sequence[ListedShard]) -> None:
    """Compare the towers of all shards by their facts; a shard is opened only if it lacks these facts.

    Raises:
        InputError: two shards were embedded by different towers.

    """
    widths = [_widths(store, shard) for shard in embedded]
    for shard, found in zip(embedded, widths, strict=True):
        if found != widths[0]:
            raise InputError(
                f"shards {embedded[0].shard} and {shard.shard} have vectors of different towers; nothing was changed; run embed again with --force"
            )


def _widths(store: Store, shard: ListedShard) -> dict[str, int]:
    towers = shard.facts.get("towers")
    if towers is None:
        return tower_widths(store.schema(shard, "image_embeddings"))
    return {name: tower["dim"] for name, tower in towers.items()}


def summary(found: Findings, settings: ShiftSettings, shards: Sequence[str]) -> dict[str, object]:
    """Return the contents of statistics.json; a value is None if it could not be measured."""
    shift, val = found.parameters, found.judged
    weight = shift.count / shift.count.sum()
    return {
        "num_clusters": settings.num_clusters,
        "covariance": settings.covariance,
        "dim": shift.mean.shape[1],
        "train_pictures": int(shift.count.sum()),
        "num_shards": len(shards),
        "occupancy": {
            "smallest": int(shift.count.min()),
            "median": float(np.median(shift.count)),
            "largest": int(shift.count.max()),
            "empty": int((shift.count == 0).sum()),
        },
        "global_mean_norm": float(np.linalg.norm(shift.global_mean)),
        "global_variance": float((shift.global_scale**2).sum()),
        "within_cluster_variance": float(weight @ shift.variance.sum(axis=1)),
        "val_captions": len(val["cluster"]),
        "text_to_cluster_accuracy": choice_accuracy(val["text"], val["cluster"], shift.mean),
        "text_to_cluster_accuracy_by_expected_cosine": expected_choice_accuracy(
            val["text"], val["cluster"], expected_directions(shift, seed=settings.seed)
        ),
        "text_to_cluster_accuracy_by_k": found.by_clusters,
        "val_cosine": {name: _mean(val[name]) for name in ("picture_text", "picture_mean", "text_mean")},
        **_scales(found, settings),
    }


def _scales(found: Findings, settings: ShiftSettings) -> dict[str, float | None]:
    """Return c matched to the data by each method, and the value that is used.

    Raises:
        InputError: the recipe uses the matched c, but no captions determine it.

    """
    shift, train, val = found.parameters, found.pairs, found.judged
    std = np.sqrt(shift.variance)
    rows, caption = found.conditioned["rows"].astype(np.float32), found.conditioned["caption"]
    label = np.unique(caption, return_inverse=True)[1]
    own, _ = nearest(rows, shift.mean)
    shared = matched_scale(rows, label, std[own])
    regressed = regression_scale(
        (train["picture"], train["text"]), (val["picture"], val["text"]), std[val["cluster"]]
    )
    matched = regressed if shared is None else shared
    if settings.scale == "matched" and matched is None:
        raise InputError(
            "shift.scale=matched needs captions that pictures share, or more captions than the vectors have dimensions; "
            "committed work is safe; set shift.scale to a number"
        )
    return {
        "two_sample_cosine_given_caption": two_sample_cosine(groups_of(rows, label), each="pair"),
        "scale_matched_to_captions": shared,
        "scale_at_most_by_regression": regressed,
        "scale": matched if settings.scale == "matched" else settings.scale,
    }


def shift_bytes(context: Context, found: Findings, towers: Sequence[str]) -> bytes:
    """Return shift.safetensors: parameters of the clusters and global ones, float32, and what they were computed from."""
    settings: ShiftSettings = context.recipe.shift
    shift = found.parameters
    tensors = {
        "mean": shift.mean.astype(np.float32),
        "scale": shift.scale.astype(np.float32),
        "count": shift.count.astype(np.int64),
        "global_mean": shift.global_mean.astype(np.float32),
        "global_scale": shift.global_scale.astype(np.float32),
    }
    for name in ("factor", "cholesky"):
        value = getattr(shift, name)
        if value is not None:
            tensors[name] = value.astype(np.float32)
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} of the shift parameters has NaN or infinite values")
    data = digest({name: manifest.digest for name, manifest in context.inputs.items()})
    return safetensors_bytes(
        tensors,
        {
            "towers": json.dumps(list(towers)),
            "normalisation": NORMALISATION,
            "k": str(settings.num_clusters),
            "covariance": settings.covariance,
            "seed": str(settings.seed),
            "data": data,
        },
    )


def drawn(refs: Sequence[EmbeddedShard], found: Findings) -> dict[str, bytes]:
    """Return the plots by name."""
    return {
        "occupancy": plots.occupancy(found.parameters.count),
        "spectrum": plots.spectrum(spectrum(_sample(found))),
        "cosines": plots.cosines(_cosines(found)),
        "clusters": plots.contact_sheet(_contacts(refs[:CONTACT_SHARDS], found.parameters)),
    }


def curves(found: Findings) -> plots.Curves:
    """Return the data of the plots as JSON: images per cluster, variance by component, histograms of cosines over [-1, 1]."""
    counts = np.sort(found.parameters.count)[::-1]
    variances = spectrum(_sample(found))
    return {
        "images per cluster": {str(n): int(counts[n]) for n in _few(len(counts))},
        "variance by component": {str(n + 1): float(variances[n]) for n in _few(len(variances))},
        "cosines": {
            name: {
                "mean": _mean(values),
                "counts": np.histogram(values, COSINE_BINS, (-1, 1))[0].tolist(),
            }
            for name, values in _cosines(found).items()
        },
    }


def _few(size: int) -> list[int]:
    """Return at most MAX_CURVE_POINTS indices, evenly spaced over a range, including both ends."""
    return np.unique(np.linspace(0, size - 1, min(size, MAX_CURVE_POINTS)).round().astype(int)).tolist()


def _sample(found: Findings) -> Float[np.ndarray, "n dim"]:
    return found.sample[:MAX_SPECTRUM_ROWS].astype(np.float32)


def _cosines(found: Findings) -> dict[str, Float[np.ndarray, "n"]]:
    """Return the cosines of the plot, by the pair of vectors they are between."""
    sample = _sample(found)
    half = len(sample) // 2
    return {
        "picture, its caption (val)": found.judged["picture_text"],
        "picture, its cluster (val)": found.judged["picture_mean"],
        "caption, its picture's cluster (val)": found.judged["text_mean"],
        "two train pictures": np.einsum("nd,nd->n", sample[:half], sample[half : 2 * half]),
    }


def _contacts(refs: Sequence[EmbeddedShard], shift: ShiftParameters) -> list[tuple[str, list[Image.Image]]]:
    """Return the pictures of the given shards that are closest to the means of the largest clusters."""
    clusters = np.argsort(-shift.count, kind="stable")[:CONTACT_CLUSTERS].tolist()
    arguments = {"mean": shift.mean, "clusters": clusters, "number": CONTACT_PICTURES}
    best: dict[int, list[tuple[float, str]]] = {k: [] for k in clusters}
    for part in over_shards(closest, refs, arguments):
        for k, cosine, uid in zip(part["cluster"], part["cosine"], part["uids"], strict=True):
            best[int(k)].append((-float(cosine), str(uid)))
    closest_uids = {k: [uid for _, uid in sorted(pairs)[:CONTACT_PICTURES]] for k, pairs in best.items()}
    stored = stored_pictures(refs, {uid for uids in closest_uids.values() for uid in uids})
    return [
        (
            f"cluster {k}\n{shift.count[k]} pictures",
            [decode_stored(stored[uid]) for uid in uids if uid in stored],
        )
        for k, uids in closest_uids.items()
    ]


def _mean(values: Float[np.ndarray, "n"]) -> float | None:
    return float(values.mean()) if len(values) else None
