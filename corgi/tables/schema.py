"""Every table's columns, and the one list of reasons for which a row is rejected."""

from collections.abc import Iterable
from enum import StrEnum

import pyarrow as pa


class Reason(StrEnum):
    """Why a row is not in the next table; there is no other."""

    BAD_URL = "bad_url"
    BLOCKED_ADDRESS = "blocked_address"
    DNS = "dns"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    HTTP_STATUS = "http_status"
    TOO_LARGE = "too_large"
    SHORT_BODY = "short_body"
    OPTED_OUT = "opted_out"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    TOO_MANY_PIXELS = "too_many_pixels"
    ASPECT_RATIO = "aspect_ratio"
    TOO_SMALL = "too_small"
    DECODE_FAILED = "decode_failed"
    DECODER_CRASH = "decoder_crash"
    DECODE_TIMEOUT = "decode_timeout"
    ENGINE = "engine"
    EXACT_DUPLICATE = "exact_duplicate"
    PERCEPTUAL_DUPLICATE = "perceptual_duplicate"
    SEMANTIC_DUPLICATE = "semantic_duplicate"
    DOMAIN_CAP = "domain_cap"
    LOW_SIMILARITY = "low_similarity"
    LOW_SCORE = "low_score"
    BAD_VECTOR = "bad_vector"


class Split(StrEnum):
    """Who may learn from a row: everything fitted sees train only."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


_CAPTION = pa.struct([("caption", pa.string()), ("kind", pa.string())])

PLAN = pa.schema(
    [
        ("uid", pa.string()),
        ("url", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("captions", pa.list_(_CAPTION)),
        ("sources", pa.list_(pa.string())),
        ("rows", pa.list_(pa.int64())),
    ]
)
"""One row a url: its distinct captions, and the (source digest, row) of every list row that names it."""

IMAGES = pa.schema(
    [
        ("uid", pa.string()),
        ("url", pa.string()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("mime", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
    ]
)
"""One row a kept picture, sorted by uid; image is the stored encoding, sha256 that of the raw bytes, sizes in px."""

CAPTIONS = pa.schema(
    [
        ("uid", pa.string()),
        ("ordinal", pa.int32()),
        ("caption", pa.string()),
        ("kind", pa.string()),
        ("weight", pa.float32()),
    ]
)
"""One row a caption of a kept picture, sorted by (uid, ordinal); kind is full or coarse."""

LEDGER = pa.schema(
    [
        ("source", pa.string()),
        ("row", pa.int64()),
        ("uid", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("http_status", pa.int32()),
        ("bytes", pa.int64()),
    ]
)
"""One row an input row, sorted by (source, row): kept, or rejected with a Reason."""

SELECTION = pa.schema(
    [("uid", pa.string()), ("keep", pa.bool_()), ("reason", pa.string()), ("captioned", pa.bool_())]
)
"""One row a picture, sorted by uid: whether it is trained on and measured, and whether its captions are; null means yes."""


def vector(dim: int) -> pa.DataType:
    """Return the column type of a unit vector of `dim` half floats."""
    return pa.list_(pa.float16(), dim)


def image_embeddings(dims: dict[str, int], heads: Iterable[str] = ()) -> pa.Schema:
    """Return the schema of one row a picture, sorted by uid: per tower a unit vector and its raw norm, then scores."""
    fields = [pa.field("uid", pa.string()), pa.field("split", pa.string())]
    for tower, dim in dims.items():
        fields += [pa.field(f"{tower}/image", vector(dim)), pa.field(f"{tower}/image_norm", pa.float32())]
    scores = [pa.field(f"{head}_score", pa.float32()) for head in heads]
    return pa.schema([*fields, pa.field("similarity", pa.float32()), *scores])


def caption_embeddings(dims: dict[str, int]) -> pa.Schema:
    """Return the schema of one row a caption, sorted by (uid, ordinal): per tower a unit vector and its raw norm."""
    fields = [pa.field("uid", pa.string()), pa.field("ordinal", pa.int32()), pa.field("kind", pa.string())]
    for tower, dim in dims.items():
        fields += [pa.field(f"{tower}/text", vector(dim)), pa.field(f"{tower}/text_norm", pa.float32())]
    return pa.schema([*fields, pa.field("similarity", pa.float32())])


def caption_tokens(widths: dict[str, int]) -> pa.Schema:
    """Return the schema of one row a caption, sorted by (uid, ordinal): per text encoder its token states, first to last."""
    fields = [pa.field("uid", pa.string()), pa.field("ordinal", pa.int32())]
    return pa.schema(
        fields + [pa.field(f"{name}/tokens", pa.list_(vector(width))) for name, width in widths.items()]
    )


def latents(dim: int) -> pa.Schema:
    """Return the schema of one row a kept picture, sorted by uid: its autoencoder latent."""
    return pa.schema([("uid", pa.string()), ("split", pa.string()), ("latent", vector(dim))])
