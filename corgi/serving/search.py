"""Search over a run's own pictures: by text, by an uploaded picture, by a picture of the run, or by cluster of the shift."""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from safetensors.numpy import load_file

from corgi.serving.errors import ApiError
from corgi.serving.history import history
from corgi.serving.jobs import Painter
from corgi.serving.picture_index import TRAINED, Found, PictureIndex, Where
from corgi.serving.search_bodies import (
    Hit,
    KnnHit,
    KnnRequest,
    RowHistory,
    SearchAnswer,
    SearchRequest,
    ShiftCluster,
)
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.run import Run
from corgi.unit_vectors import unit_rows

SHEET_PICTURES = 12
"""Number of pictures shown for a cluster."""
Vector = Float[np.ndarray, "dim"]


@dataclass(frozen=True, eq=False)
class Search:
    """A run's pictures, its towers and its clusters."""

    run: str
    index: PictureIndex
    painter: Painter
    means: Float[np.ndarray, "clusters dim"]
    counts: Int[np.ndarray, "clusters"]

    @classmethod
    def load(cls, run: Run, index: PictureIndex, painter: Painter) -> Self:
        """Read the clusters of a run.

        Raises:
            InputError: the run has not completed shift.

        """
        shift = load_file(run.store.path(run.shards("shift")[0], "shift"))
        means = unit_rows(np.asarray(shift["mean"], np.float32))
        return cls(run.name, index, painter, means, np.asarray(shift["count"]))

    def answer(self, asked: SearchRequest) -> SearchAnswer:
        """Return the pictures with the largest cosine to the query.

        Raises:
            ApiError: there is no such picture or cluster.

        """
        return self._near(self._vector(asked), asked.number, _where(asked))

    def like(self, picture: Image.Image, number: int) -> SearchAnswer:
        """Return the pictures most similar to a given one."""
        return self._near(self.painter.image_embedding([picture])[0].cpu().numpy(), number, Where())

    def history(self, uid: str) -> RowHistory:
        """Return everything that the run has recorded about a picture.

        Raises:
            ApiError: there is no such picture.

        """
        shard = self.index.shards[int(self.index.shard_of[self._row(uid)])]
        return history(shard, uid, self.run)

    def clusters(self, first: int, number: int) -> list[ShiftCluster]:
        """Return `number` clusters from the `first` on, largest first, with the train pictures nearest to each mean."""
        order = np.argsort(-self.counts, kind="stable")[first : first + number].tolist()
        return [_cluster(self, cluster) for cluster in order]

    def knn(self, asked: KnnRequest, picture: Image.Image | None) -> list[KnnHit]:
        """Answer a request of a clip-retrieval client.

        Raises:
            ApiError: the request has no query, or a vector of a different width.

        """
        if picture is not None:
            vector = self.painter.image_embedding([picture])[0].cpu().numpy()
        elif asked.text is not None:
            vector = self._text(asked.text)
        elif asked.embedding_input is not None:
            vector = self._given(asked.embedding_input)
        else:
            raise ApiError(400, "give text, image or embedding_input", code="no_question")
        number = min(asked.num_images, asked.num_result_ids or asked.num_images)
        return [self._knn_hit(found) for found in self.index.search(vector, number)]

    def metadata(self, rows: Sequence[int]) -> list[KnnHit]:
        """Return URL and caption of rows; rows that do not exist are left out."""
        return [self._knn_hit(self.index.found(row, 1.0)) for row in rows if row < len(self.index.uid)]

    def _near(self, vector: Vector, number: int, where: Where) -> SearchAnswer:
        started = time.monotonic()
        rows = self.index.search(vector, number, where)
        hits = [
            Hit(
                uid=one.uid,
                similarity=round(one.similarity, 4),
                split=one.split,
                keep=one.keep,
                reason=one.reason,
                domain=one.domain,
            )
            for one in rows
        ]
        return SearchAnswer(hits=hits, seconds=round(time.monotonic() - started, 4))

    def _vector(self, asked: SearchRequest) -> Vector:
        if asked.text is not None:
            return self._text(asked.text)
        if asked.uid is not None:
            return self.index.vector(self._row(asked.uid))
        if asked.cluster is None or asked.cluster >= len(self.means):
            raise ApiError(404, f"there are {len(self.means)} clusters", param="cluster", code="not_found")
        return self.means[asked.cluster]

    def _text(self, text: str) -> Vector:
        return self.painter.text_embedding([text])[0].cpu().numpy()

    def _given(self, values: Sequence[float]) -> Vector:
        vector = np.asarray(values, np.float32)
        length = float(np.linalg.norm(vector))
        if len(vector) != self.means.shape[1] or not np.isfinite(length) or length == 0:
            raise ApiError(
                400, f"embedding_input must be {self.means.shape[1]} finite numbers", param="embedding_input"
            )
        return vector / length

    def _row(self, uid: str) -> int:
        row = self.index.row_of(uid)
        if row is None:
            raise ApiError(404, "no picture of this run has that uid", param="uid", code="not_found")
        return row

    def _knn_hit(self, found: Found) -> KnnHit:
        shard = self.index.shards[int(self.index.shard_of[found.row])]
        url, caption = _texts(shard).get(found.uid, (None, None))
        return KnnHit(id=found.row, similarity=round(found.similarity, 4), url=url, caption=caption)


def decoded_base64(text: str) -> bytes:
    """Return base64 as bytes.

    Raises:
        ApiError: it is not base64.

    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is a ValueError, and so is the error for text that is not ASCII
        raise ApiError(400, "image is not base64", param="image", code="not_base64") from None


def _where(asked: SearchRequest) -> Where:
    return Where(asked.split, asked.keep, asked.reason, asked.domain)


@lru_cache(1024)
def _cluster(search: Search, cluster: int) -> ShiftCluster:
    """Return a cluster with its nearest pictures, which takes a search."""
    found = search.index.search(search.means[cluster], SHEET_PICTURES, TRAINED)
    return ShiftCluster(
        cluster=cluster, count=int(search.counts[cluster]), nearest=[one.uid for one in found]
    )


@lru_cache(64)
def _texts(shard: EmbeddedShard) -> dict[str, tuple[str | None, str | None]]:
    """Return the URL and the first caption of each picture of a shard."""
    captions = {uid: text for (uid, _), text in sorted(shard.caption_texts().items(), reverse=True)}
    facts = shard.facts(["uid", "url"]).to_pylist()
    return {row["uid"]: (row["url"], captions.get(row["uid"])) for row in facts}
