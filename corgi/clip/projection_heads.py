"""The trained part of a tower: two MLP heads on frozen features, trained with the CLIP loss over the whole batch."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip import ClipLoss
from timm.layers import Mlp
from torch import Tensor, nn

from corgi.clip.feature_rows import CountedShard, FeatureRows
from corgi.feeding.captions import drawn_caption
from corgi.feeding.noise import Noise
from corgi.settings.clip import TowerSettings
from corgi.statistics.retrieval import recall
from corgi.tables.schema import Split
from corgi.training.network_cost import IMAGE_FEATURES, TEXT_FEATURES
from corgi.training.ranks import own_rows, rank, rows_of_all, world_size

MAX_VAL_PAIRS = 5000
SCALE_FLOOR = 0.05
"""Added to each channel's standard deviation, because some channels of a frozen trunk hardly vary; the value is a choice."""
MAX_LOGIT_SCALE = math.log(100)
CAPTION, IMAGE_DROPOUT, TEXT_DROPOUT = range(3)
"""Indices of the random draws of one training row; each has its own noise stream."""


class Heads(nn.Module):
    """The same heads, layer for layer, as open_clip builds for `timm_proj: mlp` and `hf_proj_type: mlp`."""

    def __init__(self, embed_dim: int) -> None:
        """Build untrained heads into a joint space."""
        super().__init__()
        self.image = Mlp(IMAGE_FEATURES, 2 * embed_dim, embed_dim, bias=(True, False))
        hidden = (TEXT_FEATURES + embed_dim) // 2
        self.text = nn.Sequential(
            nn.Linear(TEXT_FEATURES, hidden, bias=False), nn.GELU(), nn.Linear(hidden, embed_dim, bias=False)
        )
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(1 / 0.07)))

    def forward(
        self, image: Float[Tensor, "batch 1280"], text: Float[Tensor, "batch 384"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        """Return unit vectors of both and the inverse temperature."""
        scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()[0]
        return (
            F.normalize(self.image(image).float(), dim=-1),
            F.normalize(self.text(text).float(), dim=-1),
            scale,
        )

    def put_into(self, model: nn.Module, mean: Float[Tensor, "1280"], scale: Float[Tensor, "1280"]) -> None:
        """Copy the heads into an open_clip model of the same config, with the standardisation folded into the first layer.

        W ((x - mean) / scale) + b = (W / scale) x + (b - (W / scale) mean).
        """
        state = dict(self.image.state_dict())
        folded = state["fc1.weight"].double() / scale.double()
        state["fc1.bias"] = (state["fc1.bias"].double() - folded @ mean.double()).float()
        state["fc1.weight"] = folded.float()
        model.get_submodule("visual.head.mlp").load_state_dict(state)
        model.get_submodule("text.proj").load_state_dict(self.text.state_dict())
        with torch.no_grad():
            model.get_parameter("logit_scale").copy_(self.logit_scale[0].clamp(max=MAX_LOGIT_SCALE))


class HeadsObjective:
    """open_clip's CLIP loss on feature rows of the train split; evaluated by retrieval among val pictures."""

    def __init__(
        self,
        root: str,
        features: Sequence[tuple[str, int, int, int]],
        mean: Sequence[float],
        std: Sequence[float],
        settings: Mapping[str, object],
    ) -> None:
        """Take the shards and the train pictures' moments as `FeatureSet.as_arguments` returns them; arguments are JSON. No file is read."""
        self.settings = TowerSettings.model_validate(settings)
        self.root, self.features = root, [CountedShard(*shard) for shard in features]
        self.mean = torch.tensor(mean, dtype=torch.float64).float()
        self.scale = torch.tensor(std, dtype=torch.float64).float() + SCALE_FLOOR
        self._val: tuple[np.ndarray, np.ndarray] | None = None

    def standardised(self, image: Tensor) -> Float[Tensor, "batch 1280"]:
        """Return image features standardised with the moments of the train split, so that a few channels do not dominate."""
        return (image.float() - self.mean) / self.scale

    def place(self, device: torch.device) -> None:
        """Move the features' mean and spread to a device."""
        self.mean, self.scale = self.mean.to(device), self.scale.to(device)

    def model(self) -> Heads:
        """Build untrained heads."""
        return Heads(self.settings.embed_dim)

    def rows(self) -> FeatureRows:
        """Return the train pictures that have a full caption."""
        return FeatureRows(self.root, self.features, Split.TRAIN)

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the CLIP loss over the batch of all workers, with one caption drawn per picture."""
        text = drawn_caption(batch["text"], batch["num_texts"], noise.uniform(CAPTION))
        share = self.settings.dropout
        image, text = (
            dropped(self.standardised(batch["image"]), share, noise, IMAGE_DROPOUT),
            dropped(text.float(), share, noise, TEXT_DROPOUT),
        )
        image, text, scale = model(image, text)
        clip = ClipLoss(gather_with_grad=True, rank=rank(), world_size=world_size())
        with torch.no_grad():
            cosine = (image * text).sum(dim=1).mean()
        return clip(image, text, scale), {"cosine": cosine, "logit_scale": scale.detach()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return retrieval among the val pictures, one per group; empty if there are none. Each rank embeds its share of the pictures."""
        if self._val is None:
            self._val = one_a_group(FeatureRows(self.root, self.features, Split.VAL))
        own = own_rows(len(self._val[0]))
        image, text = (
            torch.from_numpy(features[own.start : own.stop]).to(self.mean.device) for features in self._val
        )
        image, text, _ = model(self.standardised(image), text.float())
        image, text = rows_of_all(image), rows_of_all(text)
        figures = retrieval_figures(image, text) if len(image) else {}
        return {f"val/{name}": value for name, value in figures.items()}


def dropped(
    features: Float[Tensor, "batch dim"], share: float, noise: Noise, draw: int
) -> Float[Tensor, "batch dim"]:
    """Zero a share of the features and scale up the rest; which ones are zeroed is fixed by (seed, position)."""
    if share == 0:
        return features
    threshold = math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * share - 1, dtype=torch.float64)))
    kept = noise.normal((features.shape[1],), draw) >= threshold
    return features * kept / (1 - share)


def one_a_group(rows: FeatureRows) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n e"]]:
    """Return image and first caption features of the first picture of each group, in shard order, at most `MAX_VAL_PAIRS`.

    Once there are that many, no further unit is read.
    """
    seen: set[str] = set()
    images, texts = [np.empty((0, IMAGE_FEATURES), np.float16)], [np.empty((0, TEXT_FEATURES), np.float16)]
    for unit, count in enumerate(rows.counts):
        if not count or len(seen) == MAX_VAL_PAIRS:
            continue
        fresh = []
        for row, group in enumerate(rows.groups(unit)):
            if group not in seen and len(seen) < MAX_VAL_PAIRS:
                seen.add(group)
                fresh.append(row)
        loaded = rows.load(unit)
        images.append(loaded["image"][fresh])
        texts.append(loaded["text"][fresh, 0])
    return np.concatenate(images), np.concatenate(texts)


def retrieval_figures(image: Float[Tensor, "n dim"], text: Float[Tensor, "n dim"]) -> dict[str, float]:
    """Return `recall` of matched unit rows in both directions, under the names that trackers show, and the number of pairs."""
    images, texts = (rows.double().cpu().numpy() for rows in (image, text))
    ways = {"text_to_image": (texts, images), "image_to_text": (images, texts)}
    return {
        "pairs": float(len(image)),
        **{f"{way}_r@{k}": share for way, rows in ways.items() for k, share in recall(*rows, (1, 5)).items()},
    }
