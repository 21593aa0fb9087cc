"""Pseudo text for training a decoder: a text-like feature computed from each picture's embedding, so that captions' embeddings work as conditions.

`decoder.pseudo_text` names the method. Two of the methods learn from the training table or read from it; what they need is
prepared once, before the training, in one file.
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# torch has functions without types

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor, nn

from corgi.feeding.feed import first_rows
from corgi.feeding.noise import Noise
from corgi.feeding.packed_rows import CaptionedRows
from corgi.feeding.packed_set import PackedSet
from corgi.flow.tasks import Tasks, values_of
from corgi.models.language_free import (
    TrainablePerturbation,
    contrastive,
    fixed_perturbation,
    optimised,
    retrieved,
)
from corgi.names import PseudoTextName
from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import InputError
from corgi.tables.schema import Split

PSEUDO_TEXT = 5
"""Noise stream of a training sample, in addition to those of the decoder's objective."""
MAX_PAIRS = 16_384
"""Maximum number of captioned train pictures that are read, as whole row groups in order: pairs to learn from, and the pool of texts."""
STEPS, BATCH, RATE, TEMPERATURE = 500, 256, 1e-3, 0.05
"""Hyperparameters of the training of Lafite's networks, and the temperature of every contrastive loss."""
NEAREST, MAX_OTHERS = 10, 1024
"""Number of texts that a picture retrieves, and maximum number of other pictures that its feature must be distinguished from."""
MAX_MEASURED = 4096
"""Maximum number of pictures on which the moments of a prepared condition are measured."""

Vectors = Float[np.ndarray, "dim"]


class PseudoText(nn.Module):
    """The condition of a decoder in training: z itself, or Lafite's fixed perturbation of it if xi > 0."""

    def __init__(self, xi: float = 0.0) -> None:
        """Take xi."""
        super().__init__()
        self.xi = xi

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "batch dim"], noise: Noise) -> Float[Tensor, "batch dim"]:
        """Return the decoder's condition; row i depends only on its own picture and noise."""
        if self.xi == 0:
            return image
        return fixed_perturbation(image, noise.normal((image.shape[1],), PSEUDO_TEXT), self.xi)

    def moments(self, mean: Vectors, std: Vectors) -> tuple[Vectors, Vectors]:
        """Return mean and standard deviation of the condition, from those of unit embeddings.

        mean / sqrt(1 + xi^2) and sqrt((std^2 + xi^2 / d) / (1 + xi^2)): the noise is uniform on the sphere, of variance 1/d in each
        of d dimensions, and almost orthogonal to z.
        """
        length = np.sqrt(1 + self.xi**2)
        return mean / length, np.sqrt(std**2 + self.xi**2 / len(mean)) / length


class PreparedPseudoText(PseudoText):
    """A condition that reads the prepared file; its moments were measured when that file was written."""

    mean: Float[Tensor, "dim"]
    std: Float[Tensor, "dim"]

    def __init__(self, dim: int) -> None:
        """Create the buffers that `load_state_dict` fills."""
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.zeros(dim))

    def moments(self, mean: Vectors, std: Vectors) -> tuple[Vectors, Vectors]:
        """Return the moments that were measured."""
        return self.mean.double().cpu().numpy(), self.std.double().cpu().numpy()

    @torch.no_grad()
    def measure(self, image: Float[Tensor, "rows dim"], seed: int) -> None:
        """Set the moments to those of the condition, measured on some pictures."""
        h = self(image, Noise(seed, torch.arange(len(image))))
        self.mean.copy_(h.mean(0))
        self.std.copy_(h.std(0).clamp(min=1e-6))


class TrainedPseudoText(PreparedPseudoText):
    """Lafite's trainable perturbation, h = unit( z + r1(z) + exp(r2(z)) eps ): r1 and r2 learned from captioned pictures."""

    def __init__(self, dim: int) -> None:
        """Build untrained networks."""
        super().__init__(dim)
        self.perturbation = TrainablePerturbation(dim)

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "batch dim"], noise: Noise) -> Float[Tensor, "batch dim"]:
        """Return h for each picture."""
        return self.perturbation(image, noise.normal((image.shape[1],), PSEUDO_TEXT))

    def learn(self, image: Float[Tensor, "rows dim"], text: Float[Tensor, "rows dim"], seed: int) -> None:
        """Train the networks so that h of a picture is closest to its own caption among those of the batch."""
        generator = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(self.perturbation.parameters(), RATE)
        for _ in range(STEPS):
            rows = torch.randint(len(image), (min(BATCH, len(image)),), generator=generator)
            eps = torch.randn(len(rows), image.shape[1], generator=generator)
            loss = contrastive(self.perturbation(image[rows], eps), text[rows], TEMPERATURE)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        self.requires_grad_(False)


class RetrievedPseudoText(PreparedPseudoText):
    """The mean of the texts nearest to each picture, optimised to distinguish it from other pictures (Lafite2's idea)."""

    pool: Float[Tensor, "texts dim"]
    others: Float[Tensor, "others dim"]

    def __init__(self, dim: int, num_texts: int, num_others: int) -> None:
        """Create the buffers that `load_state_dict` fills."""
        super().__init__(dim)
        self.register_buffer("pool", torch.zeros(num_texts, dim))
        self.register_buffer("others", torch.zeros(num_others, dim))

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "batch dim"], noise: Noise) -> Float[Tensor, "batch dim"]:
        """Return h for each picture; it uses no noise."""
        feature = retrieved(image, self.pool, NEAREST, TEMPERATURE)
        return optimised(feature, image, self.others, temperature=TEMPERATURE)


def arguments(settings: DecoderSettings, root: str, pack: str, work: Path) -> dict[str, str]:
    """Have a worker write the prepared file, unless it exists, and return the objective's argument `prepared`; empty if nothing needs preparing.

    Raises:
        InputError: no train picture has a caption that may be learned from.

    """
    if settings.pseudo_text == "fixed":
        return {}
    path = str(work / "pseudo_text.safetensors")
    values_of([Tasks().start(prepare, root, pack, settings.model_dump(mode="json"), path)], "pseudo text")
    return {"prepared": path}


def prepare(root: str, pack: str, values: Mapping[str, object], path: str) -> None:
    """Write the file that a method of `decoder.pseudo_text` needs; do nothing if it exists. `pack` is the path of the training table's manifest.

    Raises:
        InputError: no train picture has a caption that may be learned from.

    """
    settings, target = DecoderSettings.model_validate(values), Path(path)
    if target.is_file():
        return
    rows = CaptionedRows(PackedSet.open(root, pack), Split.TRAIN)
    if sum(rows.counts) == 0:
        raise InputError(
            f"decoder.pseudo_text={settings.pseudo_text} needs captions, but no selected train picture has one; tables are safe; set fixed with decoder.pseudo_text_xi, or raise curate.caption_share"
        )
    pairs = first_rows(rows, MAX_PAIRS)
    image = torch.from_numpy(pairs["image"][:MAX_PAIRS]).float()
    texts = [torch.from_numpy(np.array(captions[:1], np.float32)) for captions in pairs["full"][:MAX_PAIRS]]
    condition = prepared(settings.pseudo_text, F.normalize(image, dim=-1), torch.cat(texts), settings.seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_bytes(save(condition.state_dict()))
    partial.replace(target)


def prepared(
    name: PseudoTextName, image: Float[Tensor, "rows dim"], text: Float[Tensor, "rows dim"], seed: int
) -> PreparedPseudoText:
    """Return a condition prepared from pictures and their captions; retrieval ignores which caption belongs to which picture."""
    if name == "retrieved":
        others = image[:MAX_OTHERS]
        condition: PreparedPseudoText = RetrievedPseudoText(image.shape[1], len(text), len(others))
        condition.pool.copy_(text)
        condition.others.copy_(others)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            condition = TrainedPseudoText(image.shape[1])
        condition.learn(image, text, seed)
    condition.measure(image[:MAX_MEASURED], seed)
    return condition


def load(settings: DecoderSettings, path: str) -> PseudoText:
    """Return the condition that the settings name; `path` is the file that `prepare` wrote, unused if nothing was prepared."""
    if settings.pseudo_text == "fixed":
        return PseudoText(settings.pseudo_text_xi)
    state = load_file(path)
    dim = len(state["mean"])
    if settings.pseudo_text == "retrieved":
        condition: PreparedPseudoText = RetrievedPseudoText(dim, len(state["pool"]), len(state["others"]))
    else:
        condition = TrainedPseudoText(dim)
    condition.load_state_dict(state)
    return condition.requires_grad_(False)
