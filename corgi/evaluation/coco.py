"""FID on COCO as usually reported: one caption per image of a fixed list, and one resizing rule for painted and real images.

The figure depends on which captions are painted, so their ids are stored and their digest is reported with it.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from PIL import Image

from corgi.evaluation.inception import Inception
from corgi.evaluation.kernels import kernel_inception_distance
from corgi.evaluation.metrics import frechet_distance
from corgi.feeding.pictures import at_side
from corgi.inference.bulk import PAINTED
from corgi.settings.errors import InputError
from corgi.tables.run import Run

NUMBER = 30_000
SIDE = 256
"""Side of the images of both sets before the network, px: the shorter side is resized to it (Pillow, bicubic, antialias), then the
centre is cropped."""
AT_ONCE = 64
"""Number of images in memory at once."""
IDS = "caption_ids.txt"


@dataclass(frozen=True)
class Caption:
    """A caption of COCO's annotations, and the file name of its image."""

    id: int
    image_id: int
    text: str
    file_name: str


def chosen(captions: Iterable[Caption], number: int) -> list[Caption]:
    """Return one caption per image, that of the smallest id, for `number` images in the order of a hash of their ids."""
    first: dict[int, Caption] = {}
    for caption in sorted(captions, key=lambda caption: caption.id):
        first.setdefault(caption.image_id, caption)
    return sorted(first.values(), key=lambda caption: _hash(caption.image_id))[:number]


def named(captions: Iterable[Caption], ids: Sequence[int]) -> list[Caption]:
    """Return the captions of a list of ids, in its order.

    Raises:
        InputError: the annotations lack an id.

    """
    by_id = {caption.id: caption for caption in captions}
    missing = [one for one in ids if one not in by_id]
    if missing:
        raise InputError(
            f"the annotations do not have caption {missing[0]}, nor {len(missing) - 1} others of the list; nothing was painted; name the list's own annotations"
        )
    return [by_id[one] for one in ids]


def read_annotations(path: str | Path) -> list[Caption]:
    """Return the captions of a file such as captions_val2014.json.

    Raises:
        InputError: it cannot be read as such a file.

    """
    try:
        annotations: Any = json.loads(Path(path).read_bytes())
        files = {image["id"]: image["file_name"] for image in annotations["images"]}
        return [
            Caption(one["id"], one["image_id"], one["caption"].strip(), files[one["image_id"]])
            for one in annotations["annotations"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path} is not a file of COCO captions: {cause}; nothing was painted; name captions_val2014.json"
        ) from error


def read_ids(path: str | Path) -> list[int]:
    """Return the caption ids of a file with one per line.

    Raises:
        InputError: it cannot be read as such a file.

    """
    try:
        return [int(line) for line in Path(path).read_text().split()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a list of caption ids: {error}; nothing was painted; write one per line"
        ) from error


def write_captions(captions: Sequence[Caption], folder: Path) -> Path:
    """Write the captions as a table to paint, and a file of their ids in the same folder; return the table's path."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "caption": [caption.text for caption in captions],
        "caption_id": [caption.id for caption in captions],
        "image_id": [caption.image_id for caption in captions],
    }
    pq.write_table(pa.table(columns), folder / "captions.parquet")
    (folder / IDS).write_text(_lines(captions))
    return folder / "captions.parquet"


def scores(
    painted: Iterable[Image.Image],
    real: Iterable[Image.Image],
    captions: Sequence[Caption],
    inception: Inception,
) -> dict[str, object]:
    """Return FID and KID of painted against real images, with everything that the figures depend on."""
    features, true = (features_of(images, inception) for images in (painted, real))
    mean, deviation = kernel_inception_distance(features, true)
    return {
        "FID": frechet_distance(features, true),
        "KID": mean,
        "KID, standard deviation": deviation,
        "painted": len(features),
        "real": len(true),
        "captions": len(captions),
        "sha256 of the caption ids": hashlib.sha256(_lines(captions).encode()).hexdigest(),
        "resize before the network": f"both sets: shorter side to {SIDE} px, Pillow bicubic, antialias, centre crop",
        "prompt template": "none",
        **inception.facts,
    }


def features_of(images: Iterable[Image.Image], inception: Inception) -> Float[np.ndarray, "n dim"]:
    """Return the features of images, of which AT_ONCE are in memory at a time.

    Raises:
        InputError: there are fewer than two.

    """
    remaining = iter(images)
    parts = []
    while part := list(islice(remaining, AT_ONCE)):
        parts.append(inception.features([at_side(image, SIDE) for image in part]))
    if sum(map(len, parts)) < 2:
        raise InputError("fewer than two images; nothing was scored; name a folder of images")
    return np.concatenate(parts)


def painted_images(run: Run) -> Iterator[Image.Image]:
    """Yield the images of a bulk generation, shard by shard."""
    for shard in run.listed(PAINTED):
        for encoded in run.store.read(shard, PAINTED, ["image"])["image"].to_pylist():
            yield Image.open(io.BytesIO(encoded)).convert("RGB")


def real_images(folder: str | Path, names: Iterable[str]) -> Iterator[Image.Image]:
    """Yield images of COCO's folder by their names.

    Raises:
        InputError: an image is missing or cannot be read.

    """
    for name in names:
        try:
            with Image.open(Path(folder) / name) as opened:
                yield opened.convert("RGB")
        except (OSError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise InputError(
                f"{Path(folder) / name} cannot be read: {cause}; painted images are kept; fetch it again and run the same command"
            ) from error


def _lines(captions: Sequence[Caption]) -> str:
    return "".join(f"{caption.id}\n" for caption in captions)


def _hash(image_id: int) -> bytes:
    return hashlib.blake2b(str(image_id).encode(), digest_size=16).digest()
