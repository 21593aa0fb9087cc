"""Settings of the stages that make pictures out of a list: plan and download."""

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
    """What every input is; `auto` reads it from endings and columns."""
    quoting: Quoting | None = added(None, since="0.2")
    """What a quotation mark means in CSV and TSV: `csv`: it may enclose a cell, which then holds separators and line ends; `none`: it is text; None: `csv` for CSV, `none` for TSV."""
    url_col: str = "url"
    """Column that holds the URL."""
    caption_col: str | None = "caption"
    """Column that holds one caption, which may be null; None when the list has no captions."""
    caption_kind_col: str | None = None
    """Column that says `full` or `coarse` for each caption; None: all are full."""
    group_col: str | None = None
    """Column whose equal values never straddle two splits; None: the canonical URL."""
    uid_col: str | None = None
    """Column that holds a 128-bit uid of 32 hex digits which is kept, such as DataComp's; null cells and None: hash of the URL."""
    image_col: str | None = None
    """Column of a Parquet file that holds encoded pictures; None: jpg, png, webp or image when its values are bytes."""
    verify_hash: tuple[str, Literal["sha256", "md5"]] | None = None
    """Column and kind of the hash that a picture's raw bytes must have, such as [sha256, sha256]."""
    save_additional_columns: tuple[str, ...] = ()
    """Further columns, as text, kept beside the pictures. A column named credit is shown with each picture."""
    block_urls: tuple[str, ...] = neutral(())
    """Lists of URLs never requested: text, or Parquet with one column. Their contents are part of every key."""
    block_domains: tuple[str, ...] = neutral(())
    """Lists of domains never contacted, subdomains included."""
    block_hashes: tuple[str, ...] = neutral(())
    """Lists of pictures never kept, by `sha256:HEX`, `md5:HEX`, `phash:HEX` or bare hex digits (64, 32, 16)."""
    number_sample_per_shard: int = Field(default=10_000, ge=1, le=1_000_000)
    """Pictures a shard is planned to hold, about."""
    val_share: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the groups used for choices during training."""
    test_share: float = Field(default=0.10, ge=0, lt=0.5)
    """Share of the groups that reports quote and nothing learns from."""
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
    """Per-row rules, judged before any GPU. A rule left at None is as the preset says; 0 or an empty list switches it off."""

    preset: PresetName = "none"
    """Rules to start from: DataComp's basic filter, or what LAION-400M asked of a row."""
    min_caption_chars: int | None = Field(default=None, ge=0)
    """Characters a caption has at least, outer white space aside."""
    max_caption_chars: int | None = Field(default=None, ge=0)
    """Characters a caption has at most."""
    min_caption_words: int | None = Field(default=None, ge=0)
    """Words, separated by white space, a caption has at least."""
    max_caption_words: int | None = Field(default=None, ge=0)
    """Words a caption has at most."""
    caption_languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] | None = None
    """Languages a caption may be in, ISO 639-1 codes as py3langid tells them."""
    min_language_score: float | None = Field(default=None, ge=0, le=1)
    """Least probability of the language found."""
    keep_without_caption: bool | None = None
    """Keep a picture that has no caption, or none that passes."""
    min_side: int | None = Field(default=None, ge=0)
    """Shorter side of the original at least, px."""
    max_aspect_ratio: float | None = Field(default=None, ge=0)
    """Longer side over shorter side of the original at most."""
    min_bytes: int | None = Field(default=None, ge=0)
    """Bytes of the body at least; the img2dataset engine does not tell them, so there the rule does not apply."""


class DownloadSettings(Section):
    """How pictures are fetched, judged, decoded and stored."""

    engine: Literal["native", "img2dataset"] = "native"
    """`native` guards addresses, bytes and time; `img2dataset` runs that library and needs trust_list."""
    trust_list: bool = False
    """Say that every URL of the list may be opened unguarded, as img2dataset does."""
    image_size: int = Field(default=256, ge=16, le=4096)
    """Target side of the stored picture, px."""
    resize_mode: Literal["border", "keep_ratio", "keep_ratio_largest", "center_crop", "no"] = "keep_ratio"
    """img2dataset's resize modes, same meaning."""
    resize_only_if_bigger: bool = False
    """Leave a picture as it is, neither enlarged nor cropped nor padded, unless its deciding side is over image_size."""
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
    """Formats that may be decoded; every further one is a further parser that meets hostile bytes."""
    timeout_s: float = Field(default=20.0, gt=0, le=600)
    """Deadline of one URL: redirects, further attempts and the waits between them included, s."""
    retries: int = Field(default=2, ge=0, le=10)
    """Further attempts after a fault that may pass (429, 5xx, reset, timeout)."""
    max_bytes: ByteSize = ByteSize(20 * 2**20)
    """Largest body, decoded, bytes."""
    max_pixels: int = Field(default=2**25, ge=1)
    """Largest picture by its header, and largest result, px; the default admits 7680 x 4320."""
    max_frames: int = Field(default=1000, ge=1)
    """Frames an animation may claim; only its first is stored."""
    max_aspect_ratio: float = Field(default=20.0, ge=1)
    """Largest ratio of the longer to the shorter side."""
    min_image_size: int = Field(default=0, ge=0)
    """Smallest shorter side kept, px."""
    disallowed_header_directives: tuple[str, ...] = (
        "noai",
        "noimageai",
        "noindex",
        "noimageindex",
        "none",
        "noml",
    )
    """X-Robots-Tag directives that refuse a picture."""
    disallowed_content_usage: tuple[str, ...] = (
        "train-ai=n",
        "train-genai=n",
        "bots=n",
    )
    """Content-Usage preferences, in a header or in robots.txt, that refuse a picture."""
    obey_robots_txt: bool = True
    """Ask each site's robots.txt first and fetch nothing it disallows (RFC 9309)."""
    user_agent: str = "corgi/0.1 (image-text research; contact address in the recipe's user_agent)"
    """Sent with each request; name a contact."""
    resolve: tuple[Annotated[str, Field(pattern=r"^[^=\s]+:\d+=[^=\s]+:\d+$")], ...] = neutral(())
    """`host:port=address:port` entries that replace name resolution; identities stay those of the URL."""
    allow_private: tuple[Annotated[str, Field(pattern=r"^[^=\s]+:\d+$")], ...] = neutral(())
    """`address:port` pairs outside the public internet that may be contacted; --force fetches again what was refused."""
    ca_file: str | None = neutral(None)
    """File of further CA certificates (PEM) trusted beside the system's, at this path on every node."""
    host_connections: int = neutral(16, ge=1, le=1000)
    """Requests of one host in flight, over all fetchers of the cluster."""
    host_delay_s: float = neutral(0.0, ge=0, le=60)
    """Shortest time between the starts of two requests of one host, over all fetchers of the cluster, s."""
    host_max_faults: int = Field(default=20, ge=0)
    """Faults in a row (no connection, no answer, 429, 503) after which a host is given up for a while; 0: never."""
    host_pause_s: float = Field(default=30.0, gt=0, le=3600)
    """How long a host that was given up is left alone before it is asked once more, s."""
    connections: int = neutral(64, ge=1, le=2000)
    """Requests in flight in one fetcher."""
    num_actors: int = neutral(1, ge=1, le=10_000)
    """Fetchers over the whole cluster."""
    shards_per_actor: int = neutral(2, ge=1, le=8)
    """Shards of one fetcher at the same time: the next has the connections that slow hosts of the first leave idle. Memory holds the images of all."""
    host_tables: int = neutral(1, ge=1, le=64)
    """Actors that lease hosts' slots, each the hosts of one hash; runs on one cluster at the same time use the number of the first."""
    cpus_per_actor: float = neutral(1.0, gt=0)
    """CPUs Ray reserves for a fetcher and its decoders."""
    decode_processes: int = neutral(2, ge=1, le=256)
    """Bounded child processes that decode, per fetcher."""
    decode_timeout_s: float = Field(default=5.0, gt=0, le=120)
    """Longest decode of one picture before its child is killed, s."""
    decode_memory: ByteSize = ByteSize(2**30)
    """Memory a decoding child may add to what it starts with, bytes."""
    filter: FilterSettings = FilterSettings()
    """Which pictures and captions are worth keeping."""

    @model_validator(mode="after")
    def _img2dataset_needs_trust(self) -> "DownloadSettings":
        if self.engine == "img2dataset" and not self.trust_list:
            raise ValueError(
                "engine img2dataset guards neither addresses nor bytes: set trust_list=true to accept that"
            )
        return self


class PackSettings(Section):
    """The training table: where it is written, never what is in it."""

    num_actors: int = neutral(1, ge=1, le=4096)
    """Workers, each with one shard at a time."""
    cpus_per_actor: float = neutral(1.0, gt=0)
    """CPUs Ray reserves for a worker."""
