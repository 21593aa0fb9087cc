"""A contact sheet per cluster of the shift stage: the used train images nearest to its mean, from the sampled shards."""

import heapq
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int
from safetensors.numpy import load_file

from corgi.report import funnel
from corgi.report.committed import Committed
from corgi.tables.manifest import Listing
from corgi.tables.schema import Split
from corgi.tables.vectors import concatenated, tower_names
from corgi.unit_vectors import unit_rows

NUM_CLUSTERS, NUM_PICTURES = 12, 8
_Nearest = dict[int, list[tuple[float, str]]]


@dataclass(frozen=True)
class ClusterSheet:
    """A cluster: its number of train images, and thumbnails of those nearest to its mean."""

    cluster: int
    count: int
    thumbnails: list[funnel.Thumbnail]

    @property
    def credits(self) -> list[str]:
        """Return the credits of the images, each once."""
        return list(dict.fromkeys(one.credit for one in self.thumbnails if one.credit))


def cluster_sheets(run: Committed) -> list[ClusterSheet]:
    """Return the sheets of the largest clusters, largest first; none before shift, download, embed and curate are complete, or if no image is stored."""
    shards = run.shards("shift")
    if not shards or not {"download", "embed", "curate"} <= set(run.stages):
        return []
    shift = load_file(run.store.path(shards[0], "shift"))
    counts = np.asarray(shift["count"])
    chosen = np.argsort(-counts, kind="stable")[:NUM_CLUSTERS]
    nearest = _nearest(run, unit_rows(np.asarray(shift["mean"], np.float32)), chosen)
    thumbnails = funnel.thumbnails(run, {uid for pairs in nearest.values() for _, uid in pairs})
    sheets = [
        ClusterSheet(
            int(cluster),
            int(counts[cluster]),
            [thumbnails[uid] for _, uid in sorted(nearest[int(cluster)], reverse=True) if uid in thumbnails],
        )
        for cluster in chosen
    ]
    return [sheet for sheet in sheets if sheet.thumbnails]


def _nearest(run: Committed, means: Float[np.ndarray, "k dim"], chosen: Int[np.ndarray, "n"]) -> _Nearest:
    """Return the cosine and uid of the images nearest to each chosen mean, one shard in memory at a time."""
    best: _Nearest = {int(cluster): [] for cluster in chosen}
    used = funnel.used_uids(run) or set()
    for shard in run.sampled("embed", "image_embeddings"):
        table = _train_images(run, shard, used)
        if table.num_rows == 0:
            continue
        vectors = concatenated(table, "image", tower_names(table.schema)).astype(np.float32)
        cosines = unit_rows(vectors) @ means[chosen].T
        uids = table["uid"].to_pylist()
        for column, cluster in enumerate(best):
            rows = np.argsort(-cosines[:, column], kind="stable")[:NUM_PICTURES]
            pairs = [(float(cosines[row, column]), uids[row]) for row in rows]
            best[cluster] = heapq.nlargest(NUM_PICTURES, [*best[cluster], *pairs])
    return best


def _train_images(run: Committed, shard: Listing, used: set[str]) -> pa.Table:
    table = run.store.read(shard, "image_embeddings")
    used_uids = pa.array(sorted(used), pa.string())
    return table.filter((pc.field("split") == Split.TRAIN.value) & pc.field("uid").isin(used_uids))
