"""A decoder trained on pseudo text: a text feature made of each picture's embedding, at which captions' own embeddings are then understood.

`decoder.pseudo_text` names how it is made. What two of the ways learn or read from the training table is prepared once, before
the training, in one file.
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
"""Draw of one training sample, beside those of the decoder's objective."""
MAX_PAIRS = 16_384
"""Captioned train pictures that are read at most, whole row groups in order: pairs to learn from, and the pool of texts."""
STEPS, BATCH, RATE, TEMPERATURE = 500, 256, 1e-3, 0.05
"""The training of Lafite's networks, and the temperature of every contrast."""
NEAREST, MAX_OTHERS = 10, 1024
"""Texts that a picture retrieves, and pictures that its feature is told apart from."""
MAX_MEASURED = 4096
"""Pictures that the moments of a prepared condition are measured on, at most."""

Vectors = Float[np.ndarray, "dim"]


class PseudoText(nn.Module):
    """The condition of a decoder in training: z itself, or Lafite's fixed perturbation of it where xi is above 0."""

    def __init__(self, xi: float = 0.0) -> None:
        """Take xi."""
        super().__init__()
        self.xi = xi

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "batch dim"], noise: Noise) -> Float[Tensor, "batch dim"]:
        """Return what the decoder is conditioned on; row i depends on its picture and its noise alone."""
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
    """A condition that reads what was prepared; its moments were measured then."""

    mean: Float[Tensor, "dim"]
    std: Float[Tensor, "dim"]

    def __init__(self, dim: int) -> None:
        """Build what `load_state_dict` fills."""
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.zeros(dim))

    def moments(self, mean: Vectors, std: Vectors) -> tuple[Vectors, Vectors]:
        """Return the moments that were measured."""
        return self.mean.double().cpu().numpy(), self.std.double().cpu().numpy()

    @torch.no_grad()
    def measure(self, image: Float[Tensor, "rows dim"], seed: int) -> None:
        """Set the moments to those of the condition of some pictures."""
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
        """Return h of each picture."""
        return self.perturbation(image, noise.normal((image.shape[1],), PSEUDO_TEXT))

    def learn(self, image: Float[Tensor, "rows dim"], text: Float[Tensor, "rows dim"], seed: int) -> None:
        """Train the networks so that h of a picture finds its own caption among those of the batch."""
        draws = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(self.perturbation.parameters(), RATE)
        for _ in range(STEPS):
            rows = torch.randint(len(image), (min(BATCH, len(image)),), generator=draws)
            eps = torch.randn(len(rows), image.shape[1], generator=draws)
            loss = contrastive(self.perturbation(image[rows], eps), text[rows], TEMPERATURE)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        self.requires_grad_(False)


class RetrievedPseudoText(PreparedPseudoText):
    """Texts near to each picture, averaged and then moved until they tell it from other pictures (Lafite2's idea)."""

    pool: Float[Tensor, "texts dim"]
    others: Float[Tensor, "others dim"]

    def __init__(self, dim: int, num_texts: int, num_others: int) -> None:
        """Build what `load_state_dict` fills."""
        super().__init__(dim)
        self.register_buffer("pool", torch.zeros(num_texts, dim))
        self.register_buffer("others", torch.zeros(num_others, dim))

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "batch dim"], noise: Noise) -> Float[Tensor, "batch dim"]:
        """Return h of each picture; it draws nothing."""
        found = retrieved(image, self.pool, NEAREST, TEMPERATURE)
        return optimised(found, image, self.others, temperature=TEMPERATURE)


def arguments(settings: DecoderSettings, root: str, pack: str, work: Path) -> dict[str, str]:
    """Return the objective's argument `prepared`, none where nothing is prepared; a worker writes the file where it is not there yet.

    Raises:
        InputError: no train picture has a caption that may be learned from.

    """
    if settings.pseudo_text == "fixed":
        return {}
    path = str(work / "pseudo_text.safetensors")
    values_of([Tasks().start(prepare, root, pack, settings.model_dump(mode="json"), path)], "pseudo text")
    return {"prepared": path}


def prepare(root: str, pack: str, values: Mapping[str, object], path: str) -> None:
    """Write what a way of `decoder.pseudo_text` learns or reads of the training table at a manifest's path; done work stays.

    Raises:
        InputError: no train picture has a caption that may be learned from.

    """
    settings, target = DecoderSettings.model_validate(values), Path(path)
    if target.is_file():
        return
    rows = CaptionedRows(PackedSet.open(root, pack), Split.TRAIN)
    if sum(rows.counts) == 0:
        raise InputError(
            f"decoder.pseudo_text={settings.pseudo_text} needs captions and no selected train picture has one; tables are safe; take fixed with decoder.pseudo_text_xi, or raise curate.caption_share"
        )
    pairs = first_rows(rows, MAX_PAIRS)
    image = torch.from_numpy(pairs["image"][:MAX_PAIRS]).float()
    texts = [torch.from_numpy(np.array(captions[:1], np.float32)) for captions in pairs["full"][:MAX_PAIRS]]
    made = prepared(settings.pseudo_text, F.normalize(image, dim=-1), torch.cat(texts), settings.seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_suffix(".part")
    written.write_bytes(save(made.state_dict()))
    written.replace(target)


def prepared(
    name: PseudoTextName, image: Float[Tensor, "rows dim"], text: Float[Tensor, "rows dim"], seed: int
) -> PreparedPseudoText:
    """Return a condition made ready on pictures and their captions; retrieval takes no heed of which belong together."""
    if name == "retrieved":
        others = image[:MAX_OTHERS]
        made: PreparedPseudoText = RetrievedPseudoText(image.shape[1], len(text), len(others))
        made.pool.copy_(text)
        made.others.copy_(others)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = TrainedPseudoText(image.shape[1])
        made.learn(image, text, seed)
    made.measure(image[:MAX_MEASURED], seed)
    return made


def load(settings: DecoderSettings, path: str) -> PseudoText:
    """Return the condition that the settings name; `path` is the file that `prepare` wrote, unused where nothing is prepared."""
    if settings.pseudo_text == "fixed":
        return PseudoText(settings.pseudo_text_xi)
    state = load_file(path)
    dim = len(state["mean"])
    if settings.pseudo_text == "retrieved":
        made: PreparedPseudoText = RetrievedPseudoText(dim, len(state["pool"]), len(state["others"]))
    else:
        made = TrainedPseudoText(dim)
    made.load_state_dict(state)
    return made.requires_grad_(False)
