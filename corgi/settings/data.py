"""Settings of the stages that turn a list into pictures: plan and download."""

from typing import Annotated, Literal

from pydantic import ByteSize, Field, field_validator, model_validator

from corgi.settings.section import Section, added, neutral

Quoting = Literal["none", "csv"]
PresetName = Literal["none", "datacomp_basic", "laion"]


class PlanSettings(Section):
    """The list of URLs, and how it is cut into shards and splits."""

    input: tuple[str, ...] = neutral(())
    """Sources, by path or URI (`s3://bucket/list-*.parquet`), globs allowed: URL lists (Parquet, CSV, TSV, JSON lines, each text also .gz or .zst; plain text), img2dataset folders, webdataset tars, Parquet with pictures inside, picture folders. Their contents are part of every key, their names are not."""
    input_format: Literal["auto", "parquet", "csv", "tsv", "jsonl", "txt", "webdataset", "files"] = "auto"
    """Format of every input; `auto`: recognised by file extensions and columns."""
    quoting: Quoting | None = added(None, since="0.2")
    """What a quotation mark means in CSV and TSV: `csv`: it may enclose a cell, which then holds separators and line ends; `none`: it is text; None: `csv` for CSV, `none` for TSV."""
    url_col: str = "url"
    """Column that holds the URL."""
    caption_col: str | None = "caption"
    """Column that holds one caption, which may be null; None when the list has no captions."""
    caption_kind_col: str | None = None
    """Column that says `full` or `coarse` for each caption; None: all are full."""
    group_col: str | None = None
    """Column whose equal values are always in the same split; None: the canonical URL."""
    uid_col: str | None = None
    """Column that holds a 128-bit uid as 32 hex digits, such as DataComp's, which becomes the row's uid; null cells and None: hash
    of the URL."""
    image_col: str | None = None
    """Column of a Parquet file that holds encoded pictures; None: jpg, png, webp or image when its values are bytes."""
    verify_hash: tuple[str, Literal["sha256", "md5"]] | None = None
    """Column and kind of the hash that a picture's raw bytes must have, such as [sha256, sha256]."""
    save_additional_columns: tuple[str, ...] = ()
    """Additional columns of the list that are kept, as text, with the pictures. A column named credit is shown with each picture."""
    block_urls: tuple[str, ...] = neutral(())
    """Lists of URLs that are never requested: text, or Parquet with one column. Their contents are part of every key."""
    block_domains: tuple[str, ...] = neutral(())
    """Lists of domains that are never contacted, including their subdomains."""
    block_hashes: tuple[str, ...] = neutral(())
    """Lists of pictures that are never kept, as `sha256:HEX`, `md5:HEX`, `phash:HEX` or hex digits alone (64, 32 or 16)."""
    number_sample_per_shard: int = Field(default=10_000, ge=1, le=1_000_000)
    """Approximate number of pictures planned per shard."""
    val_share: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the groups in the val split, on which choices during training are based."""
    test_share: float = Field(default=0.10, ge=0, lt=0.5)
    """Share of the groups in the test split, which reports measure and on which nothing is trained."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the split."""
    credit: str = neutral("")
    """Credit line for the pictures, shown in the report."""

    @field_validator(
        "input", "block_urls", "block_domains", "block_hashes", "save_additional_columns", mode="before"
    )
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class FilterSettings(Section):
    """Per-row rules, applied before any GPU is used. None: the rule of the preset; 0 or an empty list switches a rule off."""

    preset: PresetName = "none"
    """Rules to start from: DataComp's basic filter, or the filter of LAION-400M."""
    min_caption_chars: int | None = Field(default=None, ge=0)
    """Smallest number of characters in a caption, without leading and trailing white space."""
    max_caption_chars: int | None = Field(default=None, ge=0)
    """Largest number of characters in a caption."""
    min_caption_words: int | None = Field(default=None, ge=0)
    """Smallest number of words, separated by white space, in a caption."""
    max_caption_words: int | None = Field(default=None, ge=0)
    """Largest number of words in a caption."""
    caption_languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] | None = None
    """Languages a caption may be in, as the ISO 639-1 codes that py3langid returns."""
    min_language_score: float | None = Field(default=None, ge=0, le=1)
    """Smallest probability of the detected language."""
    keep_without_caption: bool | None = None
    """Keep a picture that has no caption, or none that passes the rules."""
    min_side: int | None = Field(default=None, ge=0)
    """Smallest shorter side of the original, px."""
    max_aspect_ratio: float | None = Field(default=None, ge=0)
    """Largest ratio of the longer to the shorter side of the original."""
    min_bytes: int | None = Field(default=None, ge=0)
    """Smallest number of bytes of the body; the img2dataset engine does not report it, so the rule does not apply there."""


class DownloadSettings(Section):
    """How pictures are fetched, filtered, decoded and stored."""

    engine: Literal["native", "img2dataset"] = "native"
    """`native`: checks addresses, and limits bytes and time; `img2dataset`: runs that library, and needs trust_list."""
    trust_list: bool = False
    """Confirm that every URL of the list may be opened without these checks, as img2dataset does."""
    image_size: int = Field(default=256, ge=16, le=4096)
    """Target side of the stored picture, px."""
    resize_mode: Literal["border", "keep_ratio", "keep_ratio_largest", "center_crop", "no"] = "keep_ratio"
    """img2dataset's resize modes, with the same meaning."""
    resize_only_if_bigger: bool = False
    """Leave a picture unchanged, neither enlarged nor cropped nor padded, unless the side that the resize mode compares is larger than
    image_size."""
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    """Format of the stored picture."""
    encode_quality: int = Field(default=95, ge=1, le=100)
    """Quality for jpg and webp."""
    formats: tuple[Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"], ...] = (
        "JPEG",
        "PNG",
        "WEBP",
        "GIF",
    )
    """Formats that may be decoded; each additional format is another parser that is exposed to hostile bytes."""
    timeout_s: float = Field(default=20.0, gt=0, le=600)
    """Deadline of one URL, including redirects, retries and the waits between them, s."""
    retries: int = Field(default=2, ge=0, le=10)
    """Retries after a temporary fault (429, 5xx, reset, timeout)."""
    max_bytes: ByteSize = ByteSize(20 * 2**20)
    """Largest body after content decoding, bytes."""
    max_pixels: int = Field(default=2**25, ge=1)
    """Largest picture by its header, and largest stored picture, px; the default allows 7680 x 4320."""
    max_frames: int = Field(default=1000, ge=1)
    """Largest number of frames that an animation may declare; only the first is stored."""
    max_aspect_ratio: float = Field(default=20.0, ge=1)
    """Largest ratio of the longer to the shorter side."""
    min_image_size: int = Field(default=0, ge=0)
    """Smallest shorter side of a picture that is kept, px."""
    disallowed_header_directives: tuple[str, ...] = (
        "noai",
        "noimageai",
        "noindex",
        "noimageindex",
        "none",
        "noml",
    )
    """X-Robots-Tag directives that exclude a picture."""
    disallowed_content_usage: tuple[str, ...] = (
        "train-ai=n",
        "train-genai=n",
        "bots=n",
    )
    """Content-Usage preferences, in a header or in robots.txt, that exclude a picture."""
    obey_robots_txt: bool = True
    """Read each site's robots.txt first and fetch nothing that it disallows (RFC 9309)."""
    user_agent: str = "corgi/0.1 (image-text research; contact address in the recipe's user_agent)"
    """Sent with each request; name a contact."""
    resolve: tuple[Annotated[str, Field(pattern=r"^[^=\s]+:\d+=[^=\s]+:\d+$")], ...] = neutral(())
    """`host:port=address:port` entries that replace name resolution; a row's identity is still that of its URL."""
    allow_private: tuple[Annotated[str, Field(pattern=r"^[^=\s]+:\d+$")], ...] = neutral(())
    """`address:port` pairs outside the public internet that may be contacted; --force fetches again what was rejected without them."""
    ca_file: str | None = neutral(None)
    """File of additional CA certificates (PEM) that are trusted besides the system's, at this path on every node."""
    host_connections: int = neutral(16, ge=1, le=1000)
    """Largest number of requests to one host in flight, over all fetchers of the cluster."""
    host_delay_s: float = neutral(0.0, ge=0, le=60)
    """Shortest time between the starts of two requests to one host, over all fetchers of the cluster, s."""
    host_max_faults: int = Field(default=20, ge=0)
    """Consecutive faults (no connection, no response, 429, 503) after which a host gets no requests for host_pause_s; 0: never."""
    host_pause_s: float = Field(default=30.0, gt=0, le=3600)
    """How long such a host gets no requests before it is tried again, s."""
    connections: int = neutral(64, ge=1, le=2000)
    """Largest number of requests in flight in one fetcher."""
    num_actors: int = neutral(1, ge=1, le=10_000)
    """Number of fetchers over the whole cluster."""
    shards_per_actor: int = neutral(2, ge=1, le=8)
    """Shards that one fetcher works on at the same time: the next uses the connections that slow hosts of the first leave idle. The images of all are held in memory."""
    host_tables: int = neutral(1, ge=1, le=64)
    """Actors that grant the request slots of hosts, each for the hosts of one hash value; runs on one cluster at the same time use the number of the first."""
    cpus_per_actor: float = neutral(1.0, gt=0)
    """CPUs that Ray reserves per fetcher, including its decoders."""
    decode_processes: int = neutral(2, ge=1, le=256)
    """Child processes per fetcher that decode, with bounded memory and time."""
    decode_timeout_s: float = Field(default=5.0, gt=0, le=120)
    """Longest decode of one picture before its child is killed, s."""
    decode_memory: ByteSize = ByteSize(2**30)
    """Memory that a decoding child may allocate beyond what it starts with, bytes."""
    filter: FilterSettings = FilterSettings()
    """Which pictures and captions are worth keeping."""

    @model_validator(mode="after")
    def _img2dataset_needs_trust(self) -> "DownloadSettings":
        if self.engine == "img2dataset" and not self.trust_list:
            raise ValueError(
                "engine img2dataset neither checks addresses nor limits bytes: set trust_list=true to accept that"
            )
        return self


class PackSettings(Section):
    """How the training table is written; these settings do not change what is in it."""

    num_actors: int = neutral(1, ge=1, le=4096)
    """Number of workers, each with one shard at a time."""
    cpus_per_actor: float = neutral(1.0, gt=0)
    """CPUs that Ray reserves per worker."""
