"""The evaluate stage: measures the tower, the priors and the decoder on held-out concepts, and paints the grid."""

import io
import json
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from corgi.evaluation.grid import GridRow, paint_grid
from corgi.evaluation.measured import Pictures, load_pictures
from corgi.evaluation.metrics import (
    frechet_distance,
    interval,
    paired_cosine,
    retrieval,
    softmax_average,
)
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.imaging.decode import decode_stored
from corgi.inference.generate import Generator, assemble
from corgi.models.picture_decoder import to_bytes
from corgi.models.text_prior import Sampling, TextPrior
from corgi.settings.errors import InputError
from corgi.settings.models import EvaluateSettings, PriorSettings
from corgi.statistics.two_sample import two_sample_cosine
from corgi.tables.embedded import embedded_set, stored_pictures
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from corgi.training.autoencoder import square
from corgi.training.prior import load_prior

LABELS = {Split.TRAIN: "TRAIN", Split.TEST: "HELD-OUT"}
MAX_DECODED = 200
NOTES = [
    "Held-out concepts were split off before any training; one picture a concept is measured.",
    "Frechet distance and two-sample cosine on coarse words include training pictures: they measure fit, not generalisation.",
    "A cosine near the truth's with a two-sample cosine near 1 is collapse, not quality; read the two together.",
    "Decoder similarity is judged by the same CLIP the decoder was conditioned on.",
]


def run(context: Context) -> list[ShardTask]:
    """Commit metrics.json and grid.png of this run."""
    task = context.task("all")
    pool = Pool(cpus=2.0, gpus=context.recipe.evaluate.gpus)
    make_pending(context, EvaluateShards, [task], pool, "evaluate")
    return [task]


class EvaluateShards:
    """Measure one run in one actor."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit `metrics` and `grid`."""
        store = Store(task.root)
        shards = {name: [store.read_shard(path) for path in paths] for name, paths in task.inputs.items()}
        settings = EvaluateSettings.model_validate(task.settings["evaluate"])
        measured = Measured(store, shards, settings)
        metrics: dict[str, Any] = {
            "retrieval": measured.tower(),
            "prior": measured.priors(),
            "references": measured.references(),
            "words": measured.word_truth(),
        }
        decoded = {split: measured.decoded(split) for split in LABELS}
        metrics["decoder"] = {LABELS[split]: decoded[split].metrics for split in LABELS}
        grid = paint_grid([row for split in LABELS for row in decoded[split].rows])
        metrics["notes"] = NOTES
        buffer = io.BytesIO()
        grid.save(buffer, "PNG")
        rows = len(measured.pictures.uid)
        with store.attempt(task) as attempt:
            attempt.write_bytes("metrics", ".json", json.dumps(metrics, indent=1).encode())
            attempt.write_bytes("grid", ".png", buffer.getvalue())
            return attempt.commit(RowCounts(rows_in=rows, kept=rows))


class Decoded:
    """What the decoder painted for one split: its measures and its grid rows."""

    def __init__(self, metrics: dict[str, Any], rows: list[GridRow]) -> None:
        """Hold both."""
        self.metrics, self.rows = metrics, rows


class Measured:
    """A run, loaded once, with each measure as a method."""

    def __init__(
        self, store: Store, shards: dict[str, list[ShardManifest]], settings: EvaluateSettings
    ) -> None:
        """Load pictures and models; InputError when nothing is held out or nothing is left to learn from."""
        self.store, self.shards, self.settings = store, shards, settings
        self.generator: Generator = assemble(store, shards)
        self.pictures: Pictures = load_pictures(store, shards, settings.max_pictures)
        self.held_out = self.pictures.one_a_group(Split.TEST, settings.max_captions)
        self.train = self.pictures.train
        self.words = self.pictures.by_word(settings.min_word_pictures)
        if len(self.held_out) < 2 or len(self.train) < 2:
            raise InputError(
                "fewer than two captioned pictures are held out or trained on; tables are safe; name a longer list or raise plan.test_share"
            )

    def tower(self) -> dict[str, Any]:
        """Return text -> image retrieval of the CLIP itself among held-out concepts."""
        text, image = self.pictures.text[self.held_out], self.pictures.image[self.held_out]
        return {
            "held-out concepts": len(self.held_out),
            "text to image": retrieval(text, image),
            "image to text": retrieval(image, text),
        }

    def priors(self) -> dict[str, Any]:
        """Return every variant's measures by sampler steps."""
        settings = PriorSettings.recorded(self.shards["prior"][0].settings["prior"])
        return {
            variant: self._prior(
                load_prior(self.store, self.shards["prior"][0], self.shards["shift"][0], variant), settings
            )
            for variant in settings.variants
        }

    def references(self) -> dict[str, Any]:
        """Return what no training gives: the text embedding itself, and the softmax average of train pictures."""
        text, image = self.pictures.text[self.held_out], self.pictures.image[self.held_out]
        average = softmax_average(
            text,
            self.pictures.text[self.train],
            self.pictures.image[self.train],
            self.settings.softmax_temperature,
        )
        return {
            name: {"cosine": paired_cosine(found, image), **retrieval(found, image)}
            for name, found in (("text embedding", text), ("softmax average", average))
        }

    def word_truth(self) -> dict[str, float | None]:
        """Return what perfect samples of the coarse words would score; the floor is true against other true pictures."""
        if len(self.words) < 2:
            return {"words": len(self.words)}
        groups = [self.pictures.image[rows] for rows in self.words.values()]
        floor = frechet_distance(self._true_words(1), self._true_words(0))
        return {
            "words": len(self.words),
            "two-sample cosine of the truth": two_sample_cosine(groups, each="group"),
            "Frechet floor": floor,
        }

    def decoded(self, split: Split) -> Decoded:
        """Paint from true and from sampled embeddings, and compare with the true pictures against a shuffled control."""
        chosen = (
            self.held_out
            if split == Split.TEST
            else self.pictures.one_a_group(Split.TRAIN, len(self.held_out))
        )
        chosen = chosen[:MAX_DECODED]
        seeds = [self.settings.seed + int(n) for n in range(len(chosen))]
        true_z, text = self._tensor(self.pictures.image[chosen]), self._tensor(self.pictures.text[chosen])
        words = self.generator.word_encodings([self.pictures.caption[row] for row in chosen])
        prior_z = self.generator.prior.sample(text, seeds, self.generator.prior_sampling, words)
        uids = [self.pictures.uid[row] for row in chosen]
        encoded = stored_pictures(embedded_set(self.store, self.shards), uids)
        true = [decode_stored(encoded[uid]) for uid in uids]
        painted = {
            "from true embedding": self.generator.paint(true_z, seeds),
            "from prior": self.generator.paint(prior_z, seeds),
        }
        metrics = {name: self._similarity(pictures, true_z) for name, pictures in painted.items()}
        metrics["autoencoder alone (ceiling)"] = self._similarity(self._round_trip(true), true_z)
        rows = [
            GridRow(
                LABELS[split],
                self.pictures.caption[row],
                (true[n], painted["from true embedding"][n], painted["from prior"][n]),
            )
            for n, row in enumerate(chosen[: self.settings.grid_rows])
        ]
        return Decoded(metrics, rows)

    def _prior(self, prior: TextPrior, settings: PriorSettings) -> dict[str, Any]:
        image, text = self.pictures.image[self.held_out], self._tensor(self.pictures.text[self.held_out])
        words = self.generator.word_encodings([self.pictures.caption[row] for row in self.held_out])
        measures: dict[str, Any] = {}
        for steps in self.settings.steps:
            sampling = Sampling(steps, settings.sampler, settings.guidance)
            seeds = [self.settings.seed + n for n in range(len(text))]
            sampled = prior.sample(text, seeds, sampling, words).cpu().numpy()
            measures[str(steps)] = {
                "cosine": paired_cosine(sampled, image),
                **retrieval(sampled, image),
                **self._word_fit(prior, sampling),
            }
        return measures

    def _word_fit(self, prior: TextPrior, sampling: Sampling) -> dict[str, float | None]:
        """Return two-sample cosine and Frechet distance of samples of the coarse words; empty with fewer than two words."""
        if len(self.words) < 2:
            return {}
        each = self.settings.samples_per_caption
        text = np.repeat(
            np.stack([self.pictures.word_text[rows[0]] for rows in self.words.values()]), each, axis=0
        )
        words = self.generator.word_encodings(list(self.words))
        drawn = prior.sample(
            self._tensor(text),
            [self.settings.seed + n for n in range(len(text))],
            sampling,
            None if words is None else words.repeat_interleave(each, 0),
        )
        sampled = drawn.cpu().numpy()
        groups = list(sampled.reshape(len(self.words), each, -1))
        return {
            "two_sample_cosine": two_sample_cosine(groups, each="group"),
            "frechet": frechet_distance(sampled, self._true_words(0)),
        }

    def _true_words(self, part: int) -> Float[np.ndarray, "rows dim"]:
        """Return as many true pictures a word as samples are drawn, with replacement, a draw of their own for each part."""
        generator = np.random.default_rng([self.settings.seed, part])
        return np.concatenate(
            [
                self.pictures.image[generator.choice(rows, self.settings.samples_per_caption)]
                for rows in self.words.values()
            ]
        )

    def _similarity(self, pictures: list[Image.Image], true_z: torch.Tensor) -> dict[str, Any]:
        """Return CLIP similarity to the true picture, to another picture (the shuffled control), and their paired difference."""
        seen = self.generator.image_embedding(pictures).numpy()
        true = true_z.numpy()
        own, other = (seen * true).sum(1), (seen * np.roll(true, len(true) // 2, axis=0)).sum(1)
        values: dict[str, Float[np.ndarray, "rows"]] = {
            "similarity": own,
            "shuffled control": other,
            "difference": own - other,
        }
        return {
            name: {"mean": float(value.mean()), "low 95%": interval(value)[0], "high 95%": interval(value)[1]}
            for name, value in values.items()
        } | {"retrieval": retrieval(seen, true)}

    def _round_trip(self, pictures: list[Image.Image]) -> list[Image.Image]:
        autoencoder = self.generator.decoder.autoencoder
        squares = torch.stack([square(picture, autoencoder.image_size) for picture in pictures])
        decoded = autoencoder.decode(autoencoder.encode(squares.to(self.generator.decoder.device)))
        return [Image.fromarray(np.asarray(pixels)) for pixels in to_bytes(decoded).cpu()]

    @staticmethod
    def _tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
