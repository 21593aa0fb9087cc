"""Scores of a folder of painted pictures against real ones, in the spaces of the given networks; each figure comes with the facts of its network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from corgi.evaluation.copying import Rows
from corgi.evaluation.coverage import NEAREST, prdc
from corgi.evaluation.folders import Folder
from corgi.evaluation.inception import Inception
from corgi.evaluation.judges import Judge
from corgi.evaluation.kernels import CMMD_SIGMA, KID_SUBSET_ROWS, cmmd, kernel_inception_distance
from corgi.evaluation.memorisation import Copies, Space, find_copies
from corgi.evaluation.metrics import frechet_distance, interval, retrieval, squared_mmd
from corgi.evaluation.training_pictures import centred, pixels_of
from corgi.feeding.pictures import at_side
from corgi.imaging.decode import phash_of
from corgi.inference.generate import Generator

Vectors = Float[np.ndarray, "rows dim"]
PIXELS, HASH = "pixels", "perceptual hash"
PIXELS_SIDE_PX = 16
"""Side at which pixels are compared: a copy that went through JPEG or an autoencoder differs only in its details."""
HASH_SIDE_PX = 32
"""Side of a picture for the perceptual hash."""


@dataclass(frozen=True)
class Networks:
    """The networks that embed the pictures; None for those that are not used."""

    judge: Judge | None = None
    inception: Inception | None = None
    generator: Generator | None = None
    """A run whose CLIP towers embed pictures and captions."""


def scores(painted: Folder, real: Folder, networks: Networks) -> dict[str, object]:
    """Return the measures by space, each with the facts of its network."""
    measures: dict[str, object] = {"pictures": {"painted": len(painted.pictures), "real": len(real.pictures)}}
    if networks.inception is not None:
        features = [networks.inception.features(folder.pictures) for folder in (painted, real)]
        measures["Inception"] = {**inception_scores(*features), **networks.inception.facts}
    if networks.judge is not None:
        features = [networks.judge.features(folder.pictures) for folder in (painted, real)]
        measures[networks.judge.name] = {**space_scores(*features), **networks.judge.facts}
    if networks.generator is not None:
        measures["CLIP"] = _clip_scores(painted, real, networks.generator)
    return measures


def inception_scores(painted: Vectors, real: Vectors) -> dict[str, object]:
    """Return FID, and KID with its standard deviation over subsets."""
    mean, deviation = kernel_inception_distance(painted, real)
    rows = min(KID_SUBSET_ROWS, len(painted), len(real))
    return {
        "FID": frechet_distance(painted, real),
        "KID": mean,
        "KID, standard deviation": deviation,
        "KID, rows per subset": rows,
        **_prdc(painted, real),
    }


def space_scores(painted: Vectors, real: Vectors) -> dict[str, object]:
    """Return Frechet distance, both kernel distances and PRDC of the features, which are used unchanged."""
    return {
        "Frechet distance": frechet_distance(painted, real),
        "squared MMD": squared_mmd(painted, real),
        f"CMMD, sigma {CMMD_SIGMA:g}": cmmd(painted, real),
        **_prdc(painted, real),
    }


def _prdc(painted: Vectors, real: Vectors) -> dict[str, float]:
    enough = min(len(painted), len(real)) > NEAREST
    return {f"{name}, k = {NEAREST}": value for name, value in prdc(real, painted).items()} if enough else {}


def _clip_scores(painted: Folder, real: Folder, generator: Generator) -> dict[str, object]:
    """Return the measures on unit vectors of the run's towers and, if all pictures have captions, how well these fit."""
    towers = ", ".join(tower.name for tower in generator.towers)
    vectors, truth = (vectors_of(generator, folder.pictures) for folder in (painted, real))
    measures: dict[str, object] = {**space_scores(vectors, truth), "towers": towers, "vectors": "unit norm"}
    if painted.captions is not None:
        text = generator.text_embedding(painted.captions).numpy()
        fit = (vectors * text).sum(1)
        low, high = interval(fit)
        measures |= {
            "CLIP score": float(fit.mean()),
            "CLIP score, low 95%": low,
            "CLIP score, high 95%": high,
        }
        measures |= {f"caption to picture {name}": share for name, share in retrieval(text, vectors).items()}
    return measures


def vectors_of(generator: Generator, pictures: Sequence[Image.Image]) -> Vectors:
    """Return unit vectors of pictures over the run's towers, 64 pictures at a time."""
    parts = [generator.image_embedding(list(pictures[at : at + 64])) for at in range(0, len(pictures), 64)]
    return np.concatenate([part.numpy() for part in parts])


def copies(
    painted: Folder, training: Folder, held_out: Folder, networks: Networks
) -> tuple[Copies, dict[str, object]]:
    """Return the painted pictures that are copies of training pictures, by their pixels, and the shares as JSON.

    The JSON also has the shares of painted and real pictures that are near by the perceptual hash and by each given network.
    """
    folders = (painted, training, held_out)
    copies_in = {name: find_copies(Space.of(rows)) for name, rows in _views(folders, networks).items()}
    spaces = {
        name: {"near": float(one.is_copy.mean()), **one.threshold.facts} for name, one in copies_in.items()
    }
    return copies_in[PIXELS], {**copies_in[PIXELS].share, "spaces": spaces}


def _views(folders: Sequence[Folder], networks: Networks) -> dict[str, list[Rows]]:
    """Return the rows of each folder by space."""
    views = {
        PIXELS: [pixels_of(folder.pictures, PIXELS_SIDE_PX) for folder in folders],
        HASH: [hash_rows(folder.pictures) for folder in folders],
    }
    for name, features in _features(folders, networks).items():
        centre = features[1].mean(0)
        views[name] = [centred(rows, centre) for rows in features]
    return views


def hash_rows(pictures: Sequence[Image.Image]) -> Rows:
    """Return the 64 bits of the perceptual hash of each picture's centre crop, as -1 and 1."""
    codes = [int(phash_of(at_side(picture.convert("RGB"), HASH_SIDE_PX)), 16) for picture in pictures]
    octets = np.frombuffer(b"".join(code.to_bytes(8, "big") for code in codes), np.uint8)
    return np.unpackbits(octets.reshape(len(codes), 8), axis=1).astype(np.float64) * 2 - 1


def _features(folders: Sequence[Folder], networks: Networks) -> Mapping[str, list[Vectors]]:
    features: dict[str, list[Vectors]] = {}
    if networks.judge is not None:
        features[networks.judge.name] = [networks.judge.features(folder.pictures) for folder in folders]
    if networks.generator is not None:
        features["CLIP"] = [vectors_of(networks.generator, folder.pictures) for folder in folders]
    return features
