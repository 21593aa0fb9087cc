"""Settings of the stages around CLIP: tower, embed, curate, shift."""

from typing import Literal

from pydantic import Field

from corgi.settings.section import Section, neutral
from corgi.settings.training import TrainingSettings


class TowerSettings(Section):
    """An own open_clip model: packaged frozen backbones, heads trained with the CLIP loss on the train split."""

    image_backbone: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    """Frozen image trunk, weights from an installed package."""
    text_backbone: Literal["minilm"] = "minilm"
    """Frozen text trunk, weights from an installed package."""
    image_size: int = Field(default=128, ge=32, le=512)
    """Side of the trunk's input, px."""
    embed_dim: int = Field(default=256, ge=8, le=4096)
    """Width of the joint space."""
    context_length: int = Field(default=32, ge=4, le=512)
    """Tokens of text at most."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Dropout on the frozen features while the heads learn."""
    feature_batch: int = neutral(64, ge=1)
    """Pictures a forward pass of the frozen trunks."""
    num_actors: int = neutral(1, ge=1)
    """Ray Data actors that compute the frozen features."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the heads and of the order."""
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
    """open_clip tag, or path of a checkpoint file; `random` builds untrained weights, for tests of the path only."""
    config: str | None = None
    """Path of the open_clip config JSON when the architecture is not one of open_clip's."""


class EmbedSettings(Section):
    """Which towers embed the pictures and captions, and how."""

    towers: tuple[TowerRef, ...] = ()
    """CLIP models; empty: the recipe's own trained tower."""
    batch_size: int = Field(default=64, ge=1, le=8192)
    """Pictures a forward pass; part of the result, since batches start at a shard's first row."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast type of the forward pass."""
    num_actors: int = neutral(1, ge=1)
    """Embedding actors, fixed."""
    cpus_per_actor: float = neutral(1.0, gt=0)
    """CPUs Ray reserves for an actor."""
    gpus_per_actor: float = neutral(0.0, ge=0)
    """GPUs Ray reserves for an actor."""
    decode_threads: int = neutral(2, ge=1)
    """Threads that decode stored pictures beside the device."""


class CurateSettings(Section):
    """What needs the whole set: thresholds and duplicates."""

    min_similarity: float | None = Field(default=None, ge=-1, le=1)
    """Smallest cosine between a picture and its best full caption; pictures without a caption pass; None: no threshold."""
    exact_duplicates: bool = True
    """Keep one of the pictures whose raw bytes are equal."""
    placeholder_min_urls: int | None = Field(default=None, ge=2)
    """Drop every picture whose raw bytes came from at least this many URLs of the whole set ("image not found"); None: none."""


class ShiftSettings(Section):
    """The clusters (mu_k, Sigma_k) of the image embeddings."""

    num_clusters: int = Field(default=16, ge=1, le=4096)
    """k of the spherical k-means; 1: one global mean and scale."""
    shrinkage_count: float = Field(default=100.0, ge=0)
    """n_0: a cluster's variance is shrunk towards the global one as if n_0 more rows had it."""
    floor_share: float = Field(default=1e-3, gt=0, le=1)
    """Variances are at least this share of the median global variance."""
    rank: int = Field(default=0, ge=0, le=1024)
    """Directions of the low-rank part of each Sigma, fitted on the k-means rows; 0: Sigma is diagonal."""
    scale: float = Field(default=1.0, gt=0, le=100)
    """c: the start distribution's standard deviation over the cluster's."""
    num_iterations: int = Field(default=25, ge=1, le=1000)
    """k-means iterations."""
    max_fit_rows: int = Field(default=1_000_000, ge=1)
    """Rows k-means is fitted on at most; all rows are assigned."""
    num_threads: int = Field(default=2, ge=1, le=256)
    """Threads and CPUs of the k-means fit; part of the result, to rounding."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of k-means."""
