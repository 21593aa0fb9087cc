"""Settings of the stages around CLIP: tower, embed, curate, shift."""

from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, field_validator, model_validator

from corgi.names import ActivationName
from corgi.settings.section import Section, added, neutral
from corgi.settings.training import TrainingSettings

TRAINED = "trained"
"""`pretrained` of the tower that the tower stage trains."""
TOWER_PREFIX = "tower:"
"""Prefix of a `TokenRef.model` that names a tower of the recipe."""


class TowerSettings(Section):
    """An open_clip model of the recipe's own: packaged frozen backbones, and heads trained with the CLIP loss on the train split."""

    image_backbone: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    """Frozen image trunk, weights from an installed package."""
    text_backbone: Literal["minilm"] = "minilm"
    """Frozen text trunk, weights from an installed package."""
    image_size: int = Field(default=128, ge=32, le=512)
    """Side of the trunk's input, px."""
    embed_dim: int = Field(default=256, ge=8, le=4096)
    """Width of the joint space."""
    context_length: int = Field(default=32, ge=4, le=512)
    """Largest number of text tokens."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Dropout on the frozen features while the heads are trained."""
    feature_batch: int = neutral(64, ge=1)
    """Pictures per forward pass of the frozen trunks."""
    num_actors: int = neutral(1, ge=1)
    """Ray Data actors that compute the frozen features."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the heads' weights and of the order of the training rows."""
    training: TrainingSettings = TrainingSettings(
        num_steps=500,
        global_batch=512,
        lr=1e-3,
        weight_decay=0.1,
        betas=(0.9, 0.98),
        ema_decay=0.99,
        zero_stage=1,
        precision="fp32",
    )
    """The heads' training."""


class TowerRef(Section):
    """One CLIP model, named as open_clip names it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    """Column prefix in the embeddings table."""
    model: str
    """open_clip architecture, such as ViT-B-32."""
    pretrained: str
    """open_clip tag, or path of a checkpoint file; `trained`: the model that the recipe's tower stage trains; `random`: untrained
    weights, only for tests of the code path."""
    config: str | None = None
    """Path of the open_clip config JSON when the architecture is not one of open_clip's."""


class HeadRef(Section):
    """A linear score on one tower's image vectors, such as LAION's aesthetic and safety heads."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    """The score's column is `<name>_score`; aesthetic and punsafe are the usual names."""
    tower: str
    """Tower whose unit image vectors the head was trained on."""
    file: str
    """Local safetensors file with `weight` [1, d] or [d] and, optionally, `bias` [1]."""
    activation: ActivationName = "none"
    """Activation after the linear layer; sigmoid turns a logit into a probability."""


class TokenRef(Section):
    """A text encoder whose token states are stored for each caption, for a prior or decoder that attends to them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    """The states' column is `<name>/tokens`."""
    model: str
    """`tower:<name>` for a CLIP tower's own text trunk; else a Hugging Face encoder: hub id, local folder or `package:` path."""
    max_tokens: int = Field(default=77, ge=1, le=1024)
    """Largest number of tokens kept per caption."""
    precision: Literal["stored", "bf16"] = added("stored", since="0.2.0")
    """Type of a Hugging Face encoder's weights: as in its files, or bf16, which takes half the memory of fp32; a tower's own trunk
    computes in `embed.precision`."""


class EmbedSettings(Section):
    """Which towers embed the pictures and captions, and how."""

    input: tuple[str, ...] = neutral(())
    """What is embedded; it replaces `plan.input`: pictures (tars, Parquet with pictures inside, folders), or folders of vectors
    computed elsewhere (clip-retrieval's npy, DataComp's npz). Its contents are part of every key."""
    towers: tuple[TowerRef, ...] = ()
    """CLIP models; empty: the recipe's own trained tower."""
    heads: tuple[HeadRef, ...] = ()
    """Scores computed from the image vectors and stored with them."""
    tokens: tuple[TokenRef, ...] = ()
    """Text encoders whose token states are stored; none by default, since the token states take most of the storage."""
    batch_size: int | None = Field(default=64, ge=1, le=8192)
    """Pictures per forward pass; part of the result, since batches start at a shard's first row. None: measured once per kind
    of device, kept in the store, and written into each shard's resolved settings."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast type of the forward pass."""
    num_actors: int = neutral(1, ge=1)
    """Number of embedding actors; it does not change during the run."""
    cpus_per_actor: float = neutral(1.0, gt=0)
    """CPUs that Ray reserves per actor."""
    gpus_per_actor: float = neutral(0.0, ge=0)
    """GPUs that Ray reserves per actor."""
    memory_per_actor: ByteSize = neutral(ByteSize(0), ge=0)
    """Memory that Ray reserves per actor: for encoders that are loaded before they move to the GPU, and for the token states of
    `shards_per_actor` shards. 0: none is reserved."""
    shards_per_actor: int = neutral(2, ge=1, le=8)
    """Shards that one actor works on at the same time: one is on the device while others are read and written."""
    decode_threads: int | None = neutral(None, ge=1)
    """Threads that decode stored pictures while the device computes; None: one for each reserved CPU, and at least two."""
    prefetch_batches: int = neutral(2, ge=1, le=64)
    """Batches decoded ahead of the device."""

    @field_validator("input", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for kind, names in (("towers", self.towers), ("heads", self.heads), ("tokens", self.tokens)):
            if len({ref.name for ref in names}) < len(names):
                raise ValueError(f"two {kind} have the same name: their columns would collide")
        return self


class ScoreRule(Section):
    """A bound on one stored score; rows without the score pass."""

    score: str = "similarity"
    """Column of the image embeddings: similarity, or `<head>_score`."""
    min: float | None = None
    """Smallest value kept."""
    max: float | None = None
    """Largest value kept."""
    top_share: float | None = Field(default=None, gt=0, le=1)
    """Share of the train rows, those with the highest scores, that is kept; the resulting threshold is applied to every split."""

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.min is None and self.max is None and self.top_share is None:
            raise ValueError("a score rule needs min, max or top_share")
        return self


class CurateSettings(Section):
    """Filters that need the whole set: thresholds, duplicates, caps. Score rules are applied first, then duplicates, then the cap."""

    preset: Literal["clip_score_top_30", "laion_b32_028"] | None = None
    """DataComp's and LAION's score rules by their names; applied in addition to the others."""
    scores: tuple[ScoreRule, ...] = ()
    """Bounds on stored scores."""
    min_similarity: float | None = Field(default=None, ge=-1, le=1)
    """Smallest cosine between a picture and its best full caption; pictures without a caption pass; None: no threshold."""
    exact_duplicates: bool = True
    """Keep one of the pictures whose raw bytes are equal."""
    placeholder_min_urls: int | None = Field(default=None, ge=2)
    """Drop every picture whose raw bytes came from at least this many URLs of the whole set ("image not found"); None: drop none."""
    perceptual_distance: int | None = Field(default=None, ge=0, le=16)
    """Largest Hamming distance between the phashes (64 bits) of two pictures that count as the same; None: not compared."""
    semantic_cosine: float | None = Field(default=None, gt=0, le=1)
    """Smallest cosine between the image vectors of two pictures that count as the same (SemDeDup); None: not compared."""
    semantic_cluster_rows: int = Field(default=1000, ge=16, le=1_000_000)
    """Approximate number of rows in a cluster; image vectors are compared within clusters."""
    duplicates: Literal["all", "across_splits"] = "all"
    """Which perceptual and semantic duplicates are dropped: all but one, or only those whose duplicate is in another split."""
    max_domain_share: float | None = Field(default=None, gt=0, le=1)
    """Largest share of the kept rows of a split that one registered domain may hold; None: no cap."""
    caption_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the train pictures that keep their captions; the others train only what needs no captions (semi-supervised runs)."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the choice of captioned pictures and of the clusters within which image vectors are compared."""
    task_memory: ByteSize = neutral(ByteSize(2**30))
    """Memory that one call on a worker may need; the rows are cut into as many parts as this limit requires."""
    parts: int = neutral(1, ge=1, le=256)
    """Smallest number of parts into which the rows are cut; that many calls run at the same time."""


class ShiftSettings(Section):
    """The clusters (mu_k, Sigma_k) of the image embeddings."""

    num_clusters: int = Field(default=16, ge=1, le=4096)
    """k of the spherical k-means; 1: one global mean and scale."""
    shrinkage_count: float = Field(default=100.0, ge=0)
    """n_0: a cluster's variance is shrunk towards the global one as if the cluster had n_0 more rows with the global variance."""
    floor_share: float = Field(default=1e-3, gt=0, le=1)
    """Smallest variance, as a share of the median global variance."""
    covariance: Literal["diagonal", "low_rank", "full"] = "diagonal"
    """Sigma_k: its diagonal, its leading directions plus a diagonal, or the full matrix (k = 1 only)."""
    rank: int = Field(default=64, ge=1, le=1024)
    """Directions of a low-rank Sigma_k."""
    scale: Annotated[float, Field(gt=0, le=100)] | Literal["matched"] = 1.0
    """c: the start distribution's standard deviation divided by the cluster's; `matched`: estimated from the data, as the spread of
    an image embedding given its caption divided by the spread of its cluster."""
    num_iterations: int = Field(default=25, ge=1, le=1000)
    """k-means iterations."""
    max_fit_rows: int = Field(default=1_000_000, ge=1)
    """Largest number of rows that k-means is fitted on; all rows are assigned."""
    fit_rows_per_cluster: int = Field(default=256, ge=1, le=100_000)
    """Rows per cluster that k-means is fitted on; at least 20,000 rows in total where there are that many."""
    measured_clusters: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = (1, 4, 16, 64, 256)
    """Values of k at which the text -> cluster accuracy is measured in addition to the chosen one."""
    update: str | None = None
    """Folder of an earlier run: its centroids stay as they are, its moments are kept, and only new shards are read."""
    max_memory: ByteSize = neutral(ByteSize(4 * 2**30))
    """Memory that one process of the stage may need; settings that need more are an error before anything starts."""
    num_threads: int = Field(default=2, ge=1, le=256)
    """Threads and CPUs of the k-means fit; part of the result, to rounding."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of k-means."""

    @model_validator(mode="after")
    def _full_is_one_set(self) -> Self:
        if self.covariance == "full" and self.num_clusters != 1:
            raise ValueError("covariance full needs num_clusters 1: use diagonal or low_rank with more")
        return self
