"""What the arms of the experiment with few captions share: a run's tables, the captions of a share, trainings, and the judge."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from corgi.evaluation.coverage import prdc
from corgi.evaluation.judged import similarity
from corgi.evaluation.judges import Judge, load_judge
from corgi.evaluation.measured import Pictures, load_pictures, trained_concepts
from corgi.evaluation.metrics import frechet_distance
from corgi.evaluation.painting import own_pictures
from corgi.evaluation.training_pictures import centred, decoded_pictures
from corgi.feeding.feed import Rows, first_rows
from corgi.feeding.packed_rows import CaptionedRows
from corgi.feeding.packed_set import PackedSet
from corgi.flow.executor import in_process
from corgi.models.embedder import Embedder, Sampling
from corgi.models.language_free import TrueEmbedding, xi_of
from corgi.models.picture_decoder import PictureDecoder
from corgi.settings.decoder import DecoderSettings
from corgi.settings.models import PriorSettings
from corgi.settings.recipe import Recipe
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.training.autoencoder import load_autoencoder
from corgi.training.decoder import DecoderObjective
from corgi.training.decoder_network import network_of, painter_of, process_of
from corgi.training.prior import PriorObjective
from corgi.training.trainer import final_weights, train
from corgi.training.training import Training

SHARES, SEEDS = (1.0, 0.1, 0.017), (0, 1, 2)
Kind = Literal["shared", "priors", "lafite-fixed", "lafite-trained", "retrieved"]
MINUTES: Mapping[Kind, float] = {
    "shared": 7,
    "priors": 6,
    "lafite-fixed": 7,
    "lafite-trained": 8,
    "retrieved": 7,
}
"""Announced per arm, on two idle cores; `priors` where the shared decoder of its seed is there."""
MEASURES = ("similarity", "R@1", "Frechet", "precision", "recall", "density", "coverage", "spread")
Figures = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Arm:
    """One file: a kind of training, the share of the train pictures whose captions it may use (0: none), and a seed."""

    kind: Kind
    share: float
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the arm and of its file."""
        return f"{self.kind}-{100 * self.share:g}-{self.seed}"

    @property
    def minutes(self) -> float:
        """Return the minutes announced, on two idle cores."""
        return MINUTES[self.kind]


@dataclass(frozen=True)
class Plan:
    """Which arms there are, how long each trains, and how many held-out pictures of each set are painted."""

    shares: tuple[float, ...] = SHARES
    seeds: tuple[int, ...] = SEEDS
    decoder_steps: int = 1200
    prior_steps: int = 600
    number: int = 200
    spread: int = 60
    """Captions painted a second time from another seed."""

    @property
    def arms(self) -> list[Arm]:
        """Return every arm: those without captions once per seed, the others once per share and seed."""
        without = [Arm(kind, 0.0, seed) for seed, kind in product(self.seeds, ("shared", "lafite-fixed"))]
        kinds: tuple[Kind, ...] = ("priors", "lafite-trained", "retrieved")
        return without + [
            Arm(kind, share, seed) for seed, share, kind in product(self.seeds, self.shares, kinds)
        ]


QUICK = Plan((1.0, 0.017), (0,), 400, 200, 60, 20)
"""About 15 minutes; its files stay below the run's folder and say nothing."""


class ShareRows:
    """The captioned train pictures of a share, in memory as one unit: larger shares hold the smaller ones."""

    def __init__(self, rows: Rows, share: float) -> None:
        """Read all rows and keep a share of them, chosen by a hash of the image's embedding."""
        everything = first_rows(rows, sum(rows.counts))
        chosen = np.array([_place(row) < share for row in everything["image"]])
        self._rows = {name: values[chosen] for name, values in everything.items()}
        self.counts = [int(chosen.sum())]

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return all of them."""
        return self._rows

    @property
    def pairs(self) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, "rows dim"]]:
        """Return image and text vectors, the first full caption of each picture."""
        text = [np.asarray(captions[0]) for captions in self._rows["full"]]
        return torch.from_numpy(self._rows["image"]).float(), torch.from_numpy(np.stack(text)).float()


def _place(row: np.ndarray) -> float:
    digest = hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class SharePrior(PriorObjective):
    """The prior's objective on the captions of a share of the train pictures."""

    def __init__(
        self, root: str, stages: dict[str, str], variant: str, settings: Mapping[str, object], share: float
    ) -> None:
        """Open the tables; arguments are JSON."""
        super().__init__(root, stages, variant, settings)
        self.share = share

    def rows(self) -> Rows:
        """Return the train pictures of the share."""
        return ShareRows(self.split(Split.TRAIN), self.share)


@dataclass(frozen=True)
class Base:
    """A run with tables, shift and autoencoder; everything that arms share is read once."""

    run: Run
    recipe: Recipe
    work: Path
    plan: Plan

    @cached_property
    def stages(self) -> dict[str, str]:
        """Return the paths of the manifests that trainings read."""
        return {name: self.run.stages()[name].path for name in ("pack", "shift", "autoencoder")}

    @cached_property
    def root(self) -> str:
        """Return the root of the run's tables."""
        return self.run.store.location

    @cached_property
    def shards(self) -> dict[str, list[Any]]:
        """Return the shards of the tables that pictures are read from."""
        return {name: list(self.run.shards(name)) for name in ("download", "embed", "curate")}

    @cached_property
    def pictures(self) -> Pictures:
        """Return all pictures with a caption."""
        return load_pictures(self.run.store, self.shards, 10**9)

    @cached_property
    def sets(self) -> dict[str, np.ndarray]:
        """Return rows of held-out pictures, those of concepts seen in another picture apart where a column names concepts."""
        held_out, column = self.pictures.one_a_group(Split.TEST, 10**9), self.recipe.evaluate.concept_col
        if column is None:
            return {"HELD-OUT": held_out[: self.plan.number]}
        trained = trained_concepts(self.run.store, self.shards, column)
        seen = np.array([self.pictures.saved[row].get(column) in trained for row in held_out])
        parts = {"HELD-OUT PAIR": held_out[seen], "HELD-OUT CONCEPT": held_out[~seen]}
        return {name: rows[: self.plan.number] for name, rows in parts.items() if len(rows) > 5}

    @cached_property
    def judge(self) -> Judge:
        """Return the independent network."""
        return load_judge("efficientnet_lite1", [])

    @cached_property
    def centre(self) -> Float[np.ndarray, "dim"]:
        """Return the mean of the judge's features over the train pictures, kept in a file."""
        path = self.work / "centre.npy"
        if not path.exists():
            found = decoded_pictures(self.run.store, self.shards, 10**9)
            np.save(path, np.concatenate([self.judge.features(part) for _, _, part in found]).mean(0))
        return np.load(path)

    @cached_property
    def truth(self) -> dict[str, Float[np.ndarray, "rows dim"]]:
        """Return the judge's vectors of the true held-out pictures, by set."""
        return {name: self.seen(self.stored(rows)) for name, rows in self.sets.items()}

    def stored(self, rows: np.ndarray) -> list[Any]:
        """Return the stored pictures of some rows."""
        return own_pictures(self.run.store, self.shards, [self.pictures.uid[row] for row in rows])

    def seen(self, pictures: Sequence[Any]) -> Float[np.ndarray, "rows dim"]:
        """Return the judge's unit vectors of pictures."""
        return centred(self.judge.features(pictures), self.centre)

    def captioned(self, share: float) -> ShareRows:
        """Return the captioned train pictures of a share."""
        return ShareRows(CaptionedRows(PackedSet.open(self.root, self.stages["pack"]), Split.TRAIN), share)

    @cached_property
    def train_images(self) -> Float[Tensor, "rows dim"]:
        """Return the embeddings of the train pictures."""
        return torch.from_numpy(self.pictures.image[self.pictures.train]).float()

    @cached_property
    def xi(self) -> float:
        """Return Lafite's xi from the mean cosine of val captions and pictures."""
        rows = np.flatnonzero(np.array(self.pictures.split) == Split.VAL.value)
        cosine = (self.pictures.text[rows] * self.pictures.image[rows]).sum(1).mean()
        return xi_of(float(cosine))

    def trained(self, name: str, objective: type, arguments: Mapping[str, Any], seed: int) -> Path:
        """Return the final weights of a training, going on from its last checkpoint."""
        section = "decoder" if issubclass(objective, DecoderObjective) else "prior"
        steps = self.plan.decoder_steps if section == "decoder" else self.plan.prior_steps
        settings = getattr(self.recipe, section).training.model_copy(
            update={"num_steps": steps, "num_workers": 1}
        )
        training = Training(
            name=name,
            folder=str(self.work / name),
            objective=objective,
            arguments={"root": self.root, "stages": self.stages, **arguments},
            settings=settings,
            tracking=self.recipe.tracking,
            group="few-captions",
            seed=seed,
        )
        with in_process():
            train([training], self.recipe)
        return final_weights(training)

    def decoder(self, name: str, seed: int, prepared: str = "", **changes: Any) -> PictureDecoder:
        """Return a trained decoder of the recipe's network; `changes` say what it is conditioned on."""
        settings = DecoderSettings.model_validate(
            {
                **self.recipe.decoder.model_dump(),
                "pseudo_text_xi": 0.0,
                "pseudo_text": "fixed",
                **changes,
                "seed": seed,
            }
        )
        told = {"settings": settings.model_dump(mode="json"), "prepared": prepared}
        weights = load_file(self.trained(name, DecoderObjective, told, seed))
        objective = DecoderObjective(self.root, self.stages, **told)
        network = network_of(settings, objective.latent_shape, objective.table)
        network.load_state_dict(weights)
        autoencoder = load_autoencoder(self.run.store, objective.autoencoder)
        process = process_of(settings, objective.latent_shape)
        return painter_of(settings, network, process, autoencoder, objective.neighbours)

    def prior(self, variant: str, share: float, seed: int) -> tuple[Embedder, Sampling]:
        """Return a prior trained on the captions of a share."""
        settings = self.recipe.prior.model_copy(
            update={"variants": (variant,), "seed": seed, "num_text_tokens": 0}
        )
        name = f"prior-{variant}-{100 * share:g}-{seed}"
        told = {"variant": variant, "settings": settings.model_dump(mode="json"), "share": share}
        weights = load_file(self.trained(name, SharePrior, told, seed))
        objective = SharePrior(self.root, self.stages, **told)
        network: Any = objective.model()
        network.load_state_dict(weights)
        return objective._prior(network), sampling_of(settings)

    def figures(
        self, decoder: PictureDecoder, embedder: Embedder, sampling: Sampling | None = None
    ) -> dict[str, dict[str, float]]:
        """Return the measures of pictures painted for the held-out captions, by set."""
        found = {}
        for name, rows in self.sets.items():
            first, again = (self._painted(decoder, embedder, rows, seed, sampling) for seed in (0, 1_000_000))
            found[name] = measures(first, self.truth[name], again)
        return found

    def _painted(
        self,
        decoder: PictureDecoder,
        embedder: Embedder,
        rows: np.ndarray,
        seed: int,
        sampling: Sampling | None,
    ) -> Float[np.ndarray, "rows dim"]:
        """Return the judge's vectors of pictures of some captions; of the second seed the first few alone."""
        settings = self.recipe.decoder
        if seed:
            rows = rows[: self.plan.spread]
        if isinstance(embedder, TrueEmbedding):
            embedder = TrueEmbedding(torch.from_numpy(self.pictures.image[rows]).float())
        seeds = [seed + n for n in range(len(rows))]
        text = torch.from_numpy(self.pictures.text[rows]).float()
        embedding = embedder.sample(text, seeds, sampling or Sampling())
        pixels = decoder.sample(embedding, seeds, settings.sample_steps, settings.guidance)
        return self.seen([Image.fromarray(np.asarray(one)) for one in pixels])


def sampling_of(settings: PriorSettings) -> Sampling:
    """Return how the recipe's prior samples."""
    return Sampling(settings.sample_steps, settings.sampler, settings.guidance, settings.num_candidates)


def measures(
    painted: Float[np.ndarray, "rows dim"],
    truth: Float[np.ndarray, "rows dim"],
    again: Float[np.ndarray, "some dim"],
) -> dict[str, float]:
    """Return the measures of one set in the judge's space; spread is the mean cosine of two pictures of one caption."""
    told = similarity(painted, truth)
    return {
        "similarity": told["similarity"],
        "R@1": told["R@1"],
        "Frechet": frechet_distance(painted, truth),
        **prdc(truth, painted),
        "spread": float((painted[: len(again)] * again).sum(1).mean()),
    }
