"""The columns of every table, and the complete list of reasons for which a row is rejected."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Iterable
from enum import StrEnum
from typing import Self

import pyarrow as pa


class Reason(StrEnum):
    """Why a row is not in the next table; the list is complete. Each reason has the text by which the report names it."""

    text: str

    def __new__(cls, value: str, text: str) -> Self:
        """Make the reason that tables store as `value`."""
        reason = str.__new__(cls, value)
        reason._value_, reason.text = value, text
        return reason

    TAKEN_DOWN = "taken_down", "taken down on request"
    BAD_URL = "bad_url", "not a URL that can be fetched"
    BAD_HASH = "bad_hash", "its expected hash is not a hash"
    NO_PICTURE = "no_picture", "its source holds no picture there"
    BLOCKED_URL = "blocked_url", "its URL is on a blocklist"
    BLOCKED_DOMAIN = "blocked_domain", "its domain is on a blocklist"
    BLOCKED_HASH = "blocked_hash", "its content is on a blocklist"
    BLOCKED_ADDRESS = "blocked_address", "address outside the public internet"
    DNS = "dns", "host name not found"
    CONNECTION = "connection", "no connection, or it broke"
    HOST_UNAVAILABLE = "host_unavailable", "its host failed too often"
    TIMEOUT = "timeout", "no whole answer in time"
    TOO_MANY_REDIRECTS = "too_many_redirects", "too many redirects"
    HTTP_STATUS = "http_status", "the server said no (HTTP status)"
    TOO_LARGE = "too_large", "file larger than allowed"
    SHORT_BODY = "short_body", "body shorter than announced"
    OPTED_OUT = "opted_out", "the site refuses this use"
    HASH_MISMATCH = "hash_mismatch", "not the content that was listed"
    NOT_AN_IMAGE = "not_an_image", "not a picture"
    FORMAT_NOT_ALLOWED = "format_not_allowed", "picture format not allowed"
    TOO_MANY_PIXELS = "too_many_pixels", "more pixels than allowed"
    TOO_MANY_FRAMES = "too_many_frames", "more frames than allowed"
    BAD_METADATA = "bad_metadata", "metadata larger or deeper than any picture needs"
    ASPECT_RATIO = "aspect_ratio", "too long and thin"
    TOO_SMALL = "too_small", "too small"
    DECODE_FAILED = "decode_failed", "damaged picture"
    DECODER_CRASH = "decoder_crash", "the decoder crashed on it"
    DECODE_TIMEOUT = "decode_timeout", "decoding took too long"
    TOO_FEW_BYTES = "too_few_bytes", "fewer bytes than asked for"
    NO_CAPTION = "no_caption", "no caption worth keeping"
    CAPTION_LENGTH = "caption_length", "caption too short or too long"
    CAPTION_LANGUAGE = "caption_language", "caption in another language"
    ENGINE = "engine", "given up by img2dataset"
    PLACEHOLDER = "placeholder", "the same bytes under many URLs"
    EXACT_DUPLICATE = "exact_duplicate", "same bytes as another picture"
    PERCEPTUAL_DUPLICATE = "perceptual_duplicate", "looks the same as another picture"
    SEMANTIC_DUPLICATE = "semantic_duplicate", "shows the same as another picture"
    DOMAIN_CAP = "domain_cap", "its domain holds its share already"
    LOW_SIMILARITY = "low_similarity", "caption and picture do not match"
    LOW_SCORE = "low_score", "a score below what was asked"
    BAD_VECTOR = "bad_vector", "its embedding is zero or not a number"


class Split(StrEnum):
    """The split of a row: everything that is fitted uses only train."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


_CAPTION = pa.struct([("caption", pa.string()), ("kind", pa.string())])
ADDITIONAL = pa.map_(pa.string(), pa.string())
CREDIT_COLUMN = "credit"
"""Additional column of a list whose text is shown with each picture, as its licence may require."""

PLAN = pa.schema(
    [
        ("uid", pa.string()),
        ("url", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("captions", pa.list_(_CAPTION)),
        ("sources", pa.list_(pa.string())),
        ("rows", pa.list_(pa.int64())),
        ("expected_hash", pa.string()),
        ("location", pa.string()),
        ("reason", pa.string()),
        ("additional", ADDITIONAL),
    ]
)
"""One row per URL: its distinct captions, and the (source digest, row) of every list row that names it.

expected_hash is `sha256:HEX` or `md5:HEX` from the list; location is where a picture that need not be fetched is stored
inside its source, and only the plan writes it; reason is why the row is rejected before any request; additional has the
columns named by save_additional_columns. Each is null if there is none.
"""

REQUEST_URL = pa.field("request_url", pa.string())
"""An additional column of plan shards that need it: the URL to request, null if it is `url` itself.

`url` is canonical and identifies the row; a server may compare the requested URL with the list's own text byte for byte.
"""

BLOCKED_HASHES = pa.schema([("hash", pa.string())])
"""Blocked content, stored with the plan's first shard: `sha256:HEX`, `md5:HEX` or `phash:HEX`, sorted."""

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
        ("animated", pa.bool_()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("additional", ADDITIONAL),
    ]
)
"""One row per kept picture, sorted by uid; image is the stored encoding, sha256 that of the raw bytes, sizes in px.

animated: whether the original has several frames, of which only the first is stored; null if the engine does not report it."""

FEATURES = pa.schema(
    [
        ("uid", pa.string()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
    ]
)
"""One row per stored image, sorted by uid: its columns of IMAGES that are not large, and the registered domain of its URL."""

CAPTIONS = pa.schema(
    [
        ("uid", pa.string()),
        ("ordinal", pa.int32()),
        ("caption", pa.string()),
        ("kind", pa.string()),
        ("weight", pa.float32()),
    ]
)
"""One row per caption of a kept picture, sorted by (uid, ordinal); kind is full or coarse."""

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
"""One row per input row, sorted by (source, row): kept, or rejected with a Reason."""

SELECTION = pa.schema(
    [("uid", pa.string()), ("keep", pa.bool_()), ("reason", pa.string()), ("captioned", pa.bool_())]
)
"""One row per picture, sorted by uid: whether it is used for training and evaluation, and whether its captions may be used for training; null means yes."""


def vector(dim: int) -> pa.DataType:
    """Return the column type of a unit vector of `dim` half floats."""
    return pa.list_(pa.float16(), dim)


def image_embeddings(dims: dict[str, int], heads: Iterable[str] = ()) -> pa.Schema:
    """Return the schema of one row per picture, sorted by uid: per tower a unit vector and its original norm, then scores."""
    fields = [pa.field("uid", pa.string()), pa.field("split", pa.string())]
    for tower, dim in dims.items():
        fields += [pa.field(f"{tower}/image", vector(dim)), pa.field(f"{tower}/image_norm", pa.float32())]
    scores = [pa.field(f"{head}_score", pa.float32()) for head in heads]
    return pa.schema([*fields, pa.field("similarity", pa.float32()), *scores])


def caption_embeddings(dims: dict[str, int]) -> pa.Schema:
    """Return the schema of one row per caption, sorted by (uid, ordinal): per tower a unit vector and its original norm."""
    fields = [pa.field("uid", pa.string()), pa.field("ordinal", pa.int32()), pa.field("kind", pa.string())]
    for tower, dim in dims.items():
        fields += [pa.field(f"{tower}/text", vector(dim)), pa.field(f"{tower}/text_norm", pa.float32())]
    return pa.schema([*fields, pa.field("similarity", pa.float32())])


def given_vectors(dims: dict[str, int]) -> pa.Schema:
    """Return the schema of precomputed vectors, in the order of their file: per tower and column, unit vectors and norms.

    uid is that of the URL, or the one in the file; a tower lacks the image or text columns if its files do.
    """
    fields = [pa.field(name, pa.string()) for name in ("uid", "url", "caption")]
    for name, dim in dims.items():
        fields += [pa.field(name, vector(dim)), pa.field(f"{name}_norm", pa.float32())]
    return pa.schema(fields)


def caption_tokens(widths: dict[str, int]) -> pa.Schema:
    """Return the schema of one row per caption, sorted by (uid, ordinal): per text encoder its token states, first to last."""
    fields = [pa.field("uid", pa.string()), pa.field("ordinal", pa.int32())]
    return pa.schema(
        fields + [pa.field(f"{name}/tokens", pa.list_(vector(width))) for name, width in widths.items()]
    )


def latents(dim: int) -> pa.Schema:
    """Return the schema of one row per kept picture: its autoencoder latent. Rows are in the order of the training table; in version 0.1 they were sorted by uid."""
    return pa.schema([("uid", pa.string()), ("split", pa.string()), ("latent", vector(dim))])


def packed(dim: int) -> pa.Schema:
    """Return the schema of the training table: one row per kept picture, sorted by split, then uid; vectors are those of all towers concatenated.

    full and coarse are the vectors of the captions that may be used for training, full_row and coarse_row their rows in the
    embed stage's captions; all are empty for a picture without a full caption.
    """
    captions, rows = pa.list_(vector(dim)), pa.list_(pa.int32())
    return pa.schema(
        [
            ("uid", pa.string()),
            ("split", pa.string()),
            ("image", vector(dim)),
            ("full", captions),
            ("coarse", captions),
            ("full_row", rows),
            ("coarse_row", rows),
        ]
    )
