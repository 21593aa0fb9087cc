"""The training objective of the latent spaces kl and vq: L1 and perceptual loss between pictures and their reconstructions."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from corgi.feeding.feed import Rows, rows_between
from corgi.feeding.noise import Noise
from corgi.feeding.pictures import PictureRows, PictureSet
from corgi.latents.codebook_training import START_PICTURES, CodebookTraining
from corgi.latents.tower_features import tower_features
from corgi.models.adversary import (
    AdversarialCodec,
    PatchDiscriminator,
    Verdicts,
    discriminator_loss,
    generator_loss,
)
from corgi.models.codebook import LearnedCodebook
from corgi.models.conv_codec import ConvCodec, ConvConfig
from corgi.models.perceptual import Features, feature_distance
from corgi.models.picture_decoder import to_bytes, unit_range
from corgi.settings.clip import TowerRef
from corgi.settings.errors import InputError
from corgi.settings.models import AutoencoderSettings, QuantiserSettings
from corgi.statistics.frechet import frechet_distance
from corgi.tables.schema import Split
from corgi.tracking.tracked_run import Shown
from corgi.training.ranks import own_rows, rows_of_all

LATENT = 0
"""Index of the random draw of a training sample's noise on its latents."""
MAX_VAL_PICTURES = 512
VAL_BATCH = 64
SHOWN_PICTURES = 8


class CodecLoss(ABC):
    """mean |x - y| + weight * feature distance, over pictures x and y = decode(encode(x) + noise); from a certain step on also an adversarial loss.

    A subclass provides the pictures.
    """

    def __init__(self, settings: AutoencoderSettings, features: Features | None = None) -> None:
        """Take the autoencoder section, and the tower of the perceptual loss or None; no file is read."""
        self.settings, self.features = settings, features
        self.device = torch.device("cpu")
        self._codebook = CodebookTraining(settings)

    @abstractmethod
    def rows(self, split: Split = Split.TRAIN) -> Rows:
        """Return the pictures of a split, with the column `picture`."""

    def place(self, device: torch.device) -> None:
        """Move the tower to a device."""
        self.device = device
        if self.features is not None:
            self.features = self.features.to(device)

    def model(self) -> ConvCodec | AdversarialCodec:
        """Build the untrained autoencoder, with a discriminator if the loss is adversarial."""
        codec, adversarial = ConvCodec(conv_config(self.settings)), self.settings.adversarial
        if isinstance(codec.quantiser, LearnedCodebook):
            codec.quantiser.learn(self.settings.training.global_batch)
        return (
            AdversarialCodec(codec, PatchDiscriminator(adversarial.widths)) if adversarial.weight else codec
        )

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss and its terms."""
        pictures, adversarial = unit_range(batch["picture"]), self.settings.adversarial
        codes = self._learned_codes(model, noise)
        if adversarial.weight:
            (made, latents), scores = model(pictures, self._noise(noise), self._is_judged(noise))
        else:
            (made, latents), scores = model(pictures, self._noise(noise)), None
        l1, perceptual = self._terms(made, pictures)
        loss = l1 + self.settings.conv.perceptual_weight * perceptual
        terms = {"l1": l1, "perceptual": perceptual}
        if scores is not None:
            verdicts = Verdicts(*scores)
            terms |= {"generator": generator_loss(verdicts), "discriminator": discriminator_loss(verdicts)}
            loss = loss + adversarial.weight * terms["generator"] + terms["discriminator"]
        if codes is not None:
            terms["commitment"] = codes.distance(latents)
            loss = loss + self.settings.quantiser.commitment * terms["commitment"]
            self._codebook.after(codes, latents, noise)
        return loss, {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return measures on val without noise: loss, PSNR (dB), feature distance, rFID and the codebook's use; empty without val rows.

        Each rank measures its share of the pictures. rFID is the Frechet distance between the tower's pooled features of pictures
        and those of their reconstructions.
        """
        codec, num_rows = codec_of(model).eval(), sum(self.rows(Split.VAL).counts)
        own = own_rows(min(MAX_VAL_PICTURES, num_rows))
        parts = [self._measured(codec, pictures) for pictures in self._val(own)]
        whole = {name: rows_of_all(_joined(parts, name)) for name in self._measures(codec)}
        count = len(whole["l1"])
        if not count:
            return {}
        figures = {name: float(whole[name].double().mean()) for name in ("l1", "perceptual", "psnr")}
        figures["loss"] = figures["l1"] + self.settings.conv.perceptual_weight * figures["perceptual"]
        if count > 1 and self.features is not None:
            figures["rfid"] = frechet_distance(*(whole[name].cpu().numpy() for name in ("real", "back")))
        if codec.quantiser is not None:
            figures["code_use"] = code_use(whole["codes"].flatten(), codec.quantiser.num_codes)
        return figures

    @torch.no_grad()
    def show(self, model: nn.Module) -> Shown:
        """Return a grid of val pictures, with their reconstructions below them."""
        shown = next(self._val(range(SHOWN_PICTURES)), None)
        if shown is None:
            return Shown()
        model = codec_of(model)
        made = model.eval().decode(model.encode(shown))
        return Shown(pictures={"reconstructions": pairs(shown, made)})

    def _learned_codes(self, model: nn.Module, noise: Noise) -> LearnedCodebook | None:
        """Return the learned codebook, updated if a step begins; None if the settings have no learned codebook."""
        if not self.settings.has_learned_codebook:
            return None
        module = getattr(model, "module", model)
        codec = codec_of(module)
        assert isinstance(codec.quantiser, LearnedCodebook)
        self._codebook.before(codec.quantiser, noise, lambda: self._first_latents(codec))
        return codec.quantiser

    @torch.no_grad()
    def _first_latents(self, codec: ConvCodec) -> Tensor:
        """Return the latents of the first train pictures, the same on every worker."""
        loaded = rows_between(self.rows(), range(START_PICTURES))["picture"]
        pictures = unit_range(torch.from_numpy(loaded).to(self.device))
        return codec.encode(pictures.to(next(codec.parameters()).dtype))

    def _is_judged(self, noise: Noise) -> bool:
        """Return whether the adversarial loss is used in this step."""
        training = self.settings.training
        step = noise.first // training.global_batch
        return step >= self.settings.adversarial.start * training.num_steps

    def _terms(self, made: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        l1 = (made - pictures).abs().mean()
        if self.features is None:
            return l1, torch.zeros_like(l1)
        return l1, feature_distance(self.features, made, pictures).mean()

    def _noise(self, noise: Noise) -> Tensor:
        config = conv_config(self.settings)
        shape = config.latent_shape(self.settings.image_size)
        if self.settings.kind == "vq":
            return torch.zeros(len(noise.positions), *shape, device=noise.positions.device)
        return self.settings.conv.latent_noise * noise.normal(shape, LATENT)

    def _measures(self, codec: ConvCodec) -> list[str]:
        """Return the names of the measures of each picture."""
        pooled = ["real", "back"] if self.features is not None else []
        return ["l1", "perceptual", "psnr", *pooled, *(["codes"] if codec.quantiser is not None else [])]

    def _measured(self, codec: ConvCodec, pictures: Tensor) -> dict[str, Tensor]:
        """Return the measures of each picture, one row per picture."""
        latents = codec.encode(pictures)
        made = codec.decode(latents)
        l1, shown = (made - pictures).abs().flatten(1).mean(1), made.clamp(0, 1)
        measures = {"l1": l1, "perceptual": torch.zeros_like(l1), "psnr": psnr(shown, pictures)}
        if self.features is not None:
            measures["perceptual"] = feature_distance(self.features, made, pictures)
            measures |= {"real": self.features.pooled(pictures), "back": self.features.pooled(shown)}
        if codec.quantiser is not None:
            measures["codes"] = codec.quantiser.codes(latents).flatten(1)
        return measures

    def _val(self, indices: range) -> Iterator[Tensor]:
        """Yield the val pictures in a range of indices, a batch at a time."""
        loaded = rows_between(self.rows(Split.VAL), indices).get("picture", ())
        for first in range(0, len(loaded), VAL_BATCH):
            yield unit_range(torch.from_numpy(loaded[first : first + VAL_BATCH]).to(self.device))


class AutoencoderObjective(CodecLoss):
    """The loss on the kept pictures of a run."""

    def __init__(
        self,
        root: str,
        stages: Mapping[str, str],
        settings: Mapping[str, object],
        tower: Mapping[str, object] | None,
    ) -> None:
        """Open the stages `download` and `curate` by their manifests' paths, and load the tower of the perceptual loss.

        `tower` is None if the loss uses no tower; arguments are JSON.
        """
        section, features = AutoencoderSettings.model_validate(settings), None
        self._pictures = PictureSet.open(root, stages)
        if tower is not None:
            num_maps = section.conv.perceptual_stages
            features = tower_features(TowerRef.model_validate(tower), num_maps, section.image_size)
        super().__init__(section, features)

    def rows(self, split: Split = Split.TRAIN) -> PictureRows:
        """Return the kept pictures of a split."""
        return PictureRows(self._pictures, split, self.settings.image_size)


def _joined(parts: list[dict[str, Tensor]], name: str) -> Tensor:
    """Return the rows of all batches; empty without a batch."""
    kind = torch.int64 if name == "codes" else torch.float32
    return torch.cat([part[name] for part in parts]) if parts else torch.zeros(0, dtype=kind)


def codec_of(model: nn.Module) -> ConvCodec:
    """Return the autoencoder, without the discriminator that may be trained with it."""
    codec = model.codec if isinstance(model, AdversarialCodec) else model
    assert isinstance(codec, ConvCodec)
    return codec


def check_code_use(val: Mapping[str, float], settings: QuantiserSettings) -> None:
    """Check, by the measures on val at the end of a training, that enough of the codebook is used; without val rows nothing is checked.

    Raises:
        InputError: the val pictures use a smaller share than `quantiser.min_code_use`.

    """
    use = val.get("code_use")
    if use is not None and use < settings.min_code_use:
        raise InputError(
            f"the codebook collapsed: val pictures use {use:.1%} of its {settings.size} codes, less than {settings.min_code_use:.1%}; "
            f"tables and checkpoints are safe; lower autoencoder.training.lr or use fewer codes (autoencoder.quantiser.{'num_codes' if settings.codebook == 'ema' else 'levels'})"
        )


def conv_config(settings: AutoencoderSettings) -> ConvConfig:
    """Return the network's sizes as the settings determine them."""
    conv = settings.conv
    is_learned = settings.has_learned_codebook
    levels = settings.quantiser.levels if settings.kind == "vq" and not is_learned else ()
    num_codes = settings.quantiser.num_codes if is_learned else 0
    return ConvConfig(conv.widths, conv.blocks, conv.channels, levels, num_codes)


def psnr(
    made: Float[Tensor, "batch 3 side side"], pictures: Float[Tensor, "batch 3 side side"]
) -> Float[Tensor, "batch"]:
    """Return -10 log10 of the mean squared error of each picture in 0..1, dB."""
    return -10 / math.log(10) * (made - pictures).square().flatten(1).mean(1).clamp(min=1e-10).log()


def code_use(codes: Tensor, num_codes: int) -> float:
    """Return the share of a codebook that some tokens use; with fewer tokens than codes, relative to the number of tokens."""
    return len(codes.unique()) / min(num_codes, len(codes))


def pairs(
    pictures: Float[Tensor, "batch 3 side side"], made: Float[Tensor, "batch 3 side side"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Return pictures side by side, with their reconstructions below them."""
    rows = [torch.cat(list(to_bytes(part.clamp(0, 1))), dim=1) for part in (pictures, made)]
    return torch.cat(rows, dim=0).cpu().numpy()
