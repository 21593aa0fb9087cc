"""Scores of a folder of painted pictures against real ones, in the spaces that are given; each figure beside what made it."""

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
"""Side at which pixels are compared: a copy that JPEG or an autoencoder changed differs in its details."""
HASH_SIDE_PX = 32
"""The side at which the perceptual hash looks at a picture."""


@dataclass(frozen=True)
class Networks:
    """What sees the pictures; each is left out where it is None."""

    judge: Judge | None = None
    inception: Inception | None = None
    generator: Generator | None = None
    """A run whose CLIP towers see pictures and captions."""


def scores(painted: Folder, real: Folder, networks: Networks) -> dict[str, object]:
    """Return the measures by space, each with the facts of its network."""
    found: dict[str, object] = {"pictures": {"painted": len(painted.pictures), "real": len(real.pictures)}}
    if networks.inception is not None:
        features = [networks.inception.features(folder.pictures) for folder in (painted, real)]
        found["Inception"] = {**inception_scores(*features), **networks.inception.facts}
    if networks.judge is not None:
        features = [networks.judge.features(folder.pictures) for folder in (painted, real)]
        found[networks.judge.name] = {**space_scores(*features), **networks.judge.facts}
    if networks.generator is not None:
        found["CLIP"] = _clip_scores(painted, real, networks.generator)
    return found


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
    """Return Frechet distance, both kernel distances and PRDC of features as they are."""
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
    """Return the measures among unit vectors of the run's towers, and how captions fit where all pictures have one."""
    towers = ", ".join(tower.name for tower in generator.towers)
    vectors, truth = (vectors_of(generator, folder.pictures) for folder in (painted, real))
    told: dict[str, object] = {**space_scores(vectors, truth), "towers": towers, "vectors": "unit norm"}
    if painted.captions is not None:
        text = generator.text_embedding(painted.captions).numpy()
        fit = (vectors * text).sum(1)
        low, high = interval(fit)
        told |= {"CLIP score": float(fit.mean()), "CLIP score, low 95%": low, "CLIP score, high 95%": high}
        told |= {f"caption to picture {name}": share for name, share in retrieval(text, vectors).items()}
    return told


def vectors_of(generator: Generator, pictures: Sequence[Image.Image]) -> Vectors:
    """Return unit vectors of pictures over the run's towers, 64 pictures at a time."""
    parts = [generator.image_embedding(list(pictures[at : at + 64])) for at in range(0, len(pictures), 64)]
    return np.concatenate([part.numpy() for part in parts])


def copies(
    painted: Folder, training: Folder, held_out: Folder, networks: Networks
) -> tuple[Copies, dict[str, object]]:
    """Return the painted pictures that are copies of training pictures, by their pixels, and the shares as JSON.

    The shares of painted and real pictures that are near by the perceptual hash and by each network given are told beside.
    """
    folders = (painted, training, held_out)
    found = {name: find_copies(Space.of(rows)) for name, rows in _views(folders, networks).items()}
    spaces = {name: {"near": float(one.is_copy.mean()), **one.threshold.facts} for name, one in found.items()}
    return found[PIXELS], {**found[PIXELS].share, "spaces": spaces}


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
    """Return the 64 bits of the perceptual hash of each picture's middle square, as -1 and 1."""
    codes = [int(phash_of(at_side(picture.convert("RGB"), HASH_SIDE_PX)), 16) for picture in pictures]
    octets = np.frombuffer(b"".join(code.to_bytes(8, "big") for code in codes), np.uint8)
    return np.unpackbits(octets.reshape(len(codes), 8), axis=1).astype(np.float64) * 2 - 1


def _features(folders: Sequence[Folder], networks: Networks) -> Mapping[str, list[Vectors]]:
    found: dict[str, list[Vectors]] = {}
    if networks.judge is not None:
        found[networks.judge.name] = [networks.judge.features(folder.pictures) for folder in folders]
    if networks.generator is not None:
        found["CLIP"] = [vectors_of(networks.generator, folder.pictures) for folder in folders]
    return found
