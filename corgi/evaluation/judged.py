"""Painted pictures judged in two spaces, next to references without painting, and the share of copies among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from corgi.evaluation.copying import cosine, is_nearer_to, is_nearer_to_training, nearest, pixel_closeness
from corgi.evaluation.judges import Judge
from corgi.evaluation.metrics import interval, retrieval
from corgi.evaluation.painting import FROM_PRIOR, FROM_TRUE, Painted
from corgi.evaluation.training_pictures import Pixels, TrainingPictures, Vectors, centred, pixels_of

FIXED = 40
"""Number of rows of a group that are also measured apart: few enough to look at one by one (docs/results.md)."""

OWN, INDEPENDENT, PIXELS = "run's own CLIP", "independent", "pixels"
RETRIEVED_BY = {
    FROM_TRUE: "nearest training picture of the true embedding (retrieval)",
    FROM_PRIOR: "nearest training picture of the prior's embedding (retrieval)",
}
"""For each way of painting, the reference that returns the training picture of the nearest embedding instead."""
NOTES = [
    "The independent space is a network that nothing of the run learned from: {judge}.",
    "Similarity alone rewards copying: read it beside the retrieved training picture, the autoencoder's ceiling and the share of copies.",
    "A copy is a painted picture that is nearer to a training picture than to the held-out truth. With many training pictures, some "
    "of them is often nearer by chance; the retrieved picture is one, named before anything was painted.",
]


@dataclass(frozen=True)
class Judged:
    """The measures of a group of pictures in two spaces; `nearest` are, by way, the training rows closest to the painted pictures.

    Closeness is measured in pixels: in the judge's space, a few training pictures are the nearest of all blurred pictures.
    """

    pictures: dict[str, dict[str, dict[str, float]]]
    copying: dict[str, dict[str, dict[str, float]]]
    nearest: dict[str, Int[np.ndarray, "rows"]]


@dataclass(frozen=True)
class PictureJudge:
    """A judging network, and the training pictures with which painted ones are compared."""

    network: Judge
    training: TrainingPictures
    side: int
    """Side at which pixels are compared, px."""

    def vectors(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Return the judge's unit vectors of pictures."""
        return centred(self.network.features(pictures), self.training.centre)

    def judge(self, painted: Painted, own: Mapping[str, Vectors], held_out: bool) -> Judged:
        """Judge a group; retrieval references and copies are reported only for held-out pictures.

        Args:
            painted: the pictures by way, and the embeddings they were painted from.
            own: the run's own image embeddings of the pictures, by way.
            held_out: whether the true pictures are not training pictures.

        """
        views = self._views(painted, own, held_out)
        pixels = {way: pixels_of(pictures, self.side) for way, pictures in painted.ways.items()}
        nearest_rows = {
            way: nearest(pixels[way], self.training.pixels, pixel_closeness)[0] for way in RETRIEVED_BY
        }
        spaces = {
            OWN: (views.own, painted.true_z.numpy(), self.training.own),
            INDEPENDENT: (views.judged, views.true, self.training.judged),
        }
        pictures = {
            space: {
                way: similarity(vectors, truth, training if held_out else None)
                for way, vectors in by_way.items()
            }
            for space, (by_way, truth, training) in spaces.items()
        }
        return Judged(pictures, self._copying(painted, views, pixels) if held_out else {}, nearest_rows)

    def _views(self, painted: Painted, seen: Mapping[str, Vectors], held_out: bool) -> "_Views":
        """Return the vectors of every way, including those of the retrieved pictures."""
        own = dict(seen)
        judged = {way: self.vectors(pictures) for way, pictures in painted.ways.items()}
        retrieved = {}
        if held_out:
            queries = {FROM_TRUE: painted.true_z.numpy(), FROM_PRIOR: painted.prior_z.numpy()}
            for way, name in RETRIEVED_BY.items():
                retrieved[way] = nearest(queries[way], self.training.own, cosine)[0]
                own[name] = self.training.own[retrieved[way]]
                judged[name] = self.training.judged[retrieved[way]]
        return _Views(own, judged, self.vectors(painted.true), retrieved)

    def _copying(
        self, painted: Painted, views: "_Views", pixels: Mapping[str, Pixels]
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Return by space and way the shares of pictures that are nearer to a training picture than to the true one."""
        truth = pixels_of(painted.true, self.side)
        spaces = {
            INDEPENDENT: (views.judged, views.true, self.training.judged, cosine),
            PIXELS: (pixels, truth, self.training.pixels, pixel_closeness),
        }
        shares: dict[str, dict[str, dict[str, float]]] = {}
        for space, (rows, true, training, closeness) in spaces.items():
            shares[space] = {}
            for way in painted.ways:
                own = views.retrieved.get(way)
                other = None if own is None else is_nearer_to(rows[way], true, training[own], closeness)
                some = is_nearer_to_training(rows[way], true, training, closeness)
                shares[space][way] = _copies(some, other)
        return shares


@dataclass(frozen=True)
class _Views:
    """Vectors by way in both spaces, the true pictures' vectors in the judge's space, and the retrieved training rows by way."""

    own: dict[str, Vectors]
    judged: dict[str, Vectors]
    true: Vectors
    retrieved: dict[str, Int[np.ndarray, "rows"]]


def similarity(vectors: Vectors, truth: Vectors, training: Vectors | None = None) -> dict[str, float]:
    """Return the cosine to a row's own truth and to another row's (the shuffled control), and how often its own truth is nearest.

    Intervals are 95 % bootstrap over rows. `R@1` and `R@5` are retrieval among the truths of the rows, `R@1 among all` among these
    and the training pictures. If there are at least FIXED rows, the first FIXED are also measured apart: a set small enough to be
    looked at, whose R@1 is among its own truths.
    """
    own = (vectors * truth).sum(1)
    control = (vectors * np.roll(truth, len(truth) // 2, axis=0)).sum(1)
    first = found_first(vectors, truth)
    further, fixed = {}, f"R@1 of the first {FIXED}"
    if len(vectors) >= FIXED:
        further[fixed] = float(found_first(vectors[:FIXED], truth[:FIXED]).mean())
    if training is not None:
        alone = first & ~is_nearer_to_training(vectors, truth, training, cosine)
        further["R@1 among all"] = float(alone.mean())
        if len(vectors) >= FIXED:
            further[f"{fixed} among all"] = float(alone[:FIXED].mean())
    return {
        **_named("similarity", own),
        "shuffled control": float(control.mean()),
        **_named("R@1", first.astype(np.float64)),
        "R@5": retrieval(vectors, truth, (5,))["R@5"],
        **further,
    }


def found_first(queries: Vectors, targets: Vectors) -> Bool[np.ndarray, "rows"]:
    """Return for which queries their own target is nearer than any other; ties count against the query."""
    similarities = queries @ targets.T
    return (similarities >= np.diagonal(similarities)[:, None]).sum(1) == 1


def _copies(some: Bool[np.ndarray, "rows"], retrieved: Bool[np.ndarray, "rows"] | None) -> dict[str, float]:
    shares = _named("nearer to some training picture", some.astype(np.float64))
    return (
        shares
        if retrieved is None
        else shares | _named("nearer to the retrieved one", retrieved.astype(np.float64))
    )


def _named(name: str, values: Float[np.ndarray, "rows"]) -> dict[str, float]:
    """Return the mean of some values and its 95 % interval."""
    low, high = interval(values)
    return {name: float(values.mean()), f"{name}, low 95%": low, f"{name}, high 95%": high}


def notes(judge: Judge) -> list[str]:
    """Return the notes that explain the figures."""
    return [
        note.format(judge=f"{judge.name} ({judge.facts['package']} {judge.facts['version']})")
        for note in NOTES
    ]
