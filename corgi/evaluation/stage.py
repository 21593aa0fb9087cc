"""The evaluate stage: measures the tower, the priors and the decoder on held-out concepts, and paints the sample grid."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from corgi.evaluation.copy_search import COPY_NOTES, CopySearch, Latents, PaintedSet
from corgi.evaluation.grid import (
    COLUMNS,
    COLUMNS_WITH_NEIGHBOURS,
    CONCEPT,
    HELD_OUT,
    PAIR,
    TRAIN,
    GridRow,
    grid_facts,
    paint_grid,
)
from corgi.evaluation.judged import Judged, PictureJudge
from corgi.evaluation.judged import notes as judged_notes
from corgi.evaluation.judges import load_judge
from corgi.evaluation.measured import Pictures, load_pictures, models_in, tables_in, trained_concepts
from corgi.evaluation.metrics import (
    figures,
    frechet_distance,
    own_similarity,
    paired_cosine,
    retrieval,
    softmax_average,
)
from corgi.evaluation.painting import FROM_PRIOR, FROM_TRUE, own_pictures, paint, tensor
from corgi.evaluation.training_pictures import LARGEST_SIDE_PX, load_training_pictures
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.inference.generate import Generator
from corgi.inference.loading import assemble
from corgi.inference.png import png_bytes
from corgi.inference.run_models import Shards
from corgi.models.embedder import Sampling
from corgi.models.text_prior import TextPrior
from corgi.settings.errors import InputError
from corgi.settings.models import EvaluateSettings, PriorSettings
from corgi.statistics.two_sample import two_sample_cosine
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import CREDIT_COLUMN, Split
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store
from corgi.tracking.tracked_run import Shown, TrackedRun
from corgi.tracking.tracker import Tracker
from corgi.training.prior import load_prior

NOTES = [
    "Held-out concepts were split off before any training; one image per concept is measured.",
    "Frechet distance and two-sample cosine on coarse captions include training pictures: they measure fit, not generalisation.",
    "A cosine near the truth's with a two-sample cosine near 1 is collapse, not quality; read the two together.",
    "Decoder similarity is judged by the same CLIP the decoder was conditioned on.",
]


def run(context: Context) -> list[ShardTask]:
    """Commit metrics.json and grid.png of this run."""
    task = context.task("all")
    pool = Pool(cpus=2.0, gpus=context.recipe.evaluate.gpus)
    arguments = {"stages": {name: stage.path for name, stage in context.inputs.items()}}
    if make_pending(context, EvaluateShards, [task], pool, "evaluate", arguments):
        _track(context, task)
    return [task]


def _track(context: Context, task: ShardTask) -> None:
    """Send the evaluation to the tracker as a run of its own: every figure by its path in metrics.json, and the grid."""
    made = context.store.read_shard(context.store.committed(task.stage, [task.key])[task.key])
    metrics = json.loads(context.store.path(made, "metrics").read_text())
    grid = np.asarray(Image.open(context.store.path(made, "grid")).convert("RGB"))
    folder = context.work_folder(task) / "tracking"
    config = {"settings": context.recipe.evaluate.model_dump(mode="json")}
    tracked = TrackedRun("evaluate", folder, context.run.folder.name, context.recipe.tracking, config)
    tracker = Tracker(tracked, 0)
    tracker.log(1, dict(figures(metrics)))
    tracker.show(1, Shown(pictures={"grid": grid}))
    tracker.commit()
    tracker.finish()


class EvaluateShards:
    """Measure one run in one actor."""

    def __init__(self, stages: Mapping[str, str]) -> None:
        """Take the paths of the input stages' manifests, by stage."""
        self._stages = stages

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit `metrics`, `grid`, and `grid_rows`, which are the grid's texts and positions."""
        store = Store(task.root)
        stages = {name: store.read_stage(path) for name, path in self._stages.items()}
        settings = EvaluateSettings.model_validate(task.settings["evaluate"])
        measured = Measured(store, models_in(store, stages), tables_in(store, stages), settings)
        metrics: dict[str, object] = {
            "retrieval": measured.tower(),
            "prior": measured.priors(),
            "references": measured.references(),
            "words": measured.coarse_truth(),
        }
        picture_judge = measured.picture_judge()
        decoded = {
            label: measured.decoded(label, rows, picture_judge) for label, rows in measured.groups().items()
        }
        metrics["decoder"] = {label: group.metrics for label, group in decoded.items()}
        notes = list(NOTES)
        rows = [row for group in decoded.values() for row in group.rows]
        num_seen = measured.generator.decoder_settings.neighbours
        is_judged = picture_judge is not None
        if picture_judge is not None:
            metrics |= _judged_metrics(picture_judge, decoded)
            notes += judged_notes(picture_judge.network)
        drawn = (rows, COLUMNS_WITH_NEIGHBOURS if is_judged else COLUMNS, is_judged, num_seen)
        plates = {"grid": paint_grid(*drawn)}
        if settings.memorisation:
            sets = {label: group.painted for label, group in decoded.items()}
            metrics["memorisation"], plates["memorisation"] = measured.copy_search().report(sets)
            notes += COPY_NOTES
        metrics["notes"] = notes
        num_rows = len(measured.pictures.uid)
        with store.attempt(task) as attempt:
            attempt.write_bytes("metrics", ".json", json.dumps(metrics, indent=1).encode())
            attempt.write_bytes("grid_rows", ".json", json.dumps(grid_facts(*drawn), indent=1).encode())
            for name, plate in plates.items():
                attempt.write_bytes(name, ".png", png_bytes(plate))
            return attempt.commit(RowCounts(rows_in=num_rows, kept=num_rows))


def _judged_metrics(picture_judge: PictureJudge, decoded: Mapping[str, "Decoded"]) -> dict[str, object]:
    """Return the judge's measures of each group, and the facts of the judge."""
    judged = {label: group.judged for label, group in decoded.items() if group.judged is not None}
    network = picture_judge.network
    return {
        "pictures": {label: group.pictures for label, group in judged.items()},
        "copying": {label: group.copying for label, group in judged.items() if group.copying},
        "judge": {"network": network.name, **network.facts},
    }


@dataclass(frozen=True)
class Decoded:
    """The result for one group: the decoder's measures, the grid rows, the judge's measures if there is a judge, and the painted pictures."""

    metrics: Mapping[str, object]
    rows: list[GridRow]
    judged: Judged | None
    painted: PaintedSet


class Measured:
    """A run, loaded once; its methods compute the measures."""

    def __init__(
        self,
        store: Store,
        models: Shards,
        shards: Mapping[str, Sequence[ListedShard]],
        settings: EvaluateSettings,
    ) -> None:
        """Load pictures and models; InputError if fewer than two captioned pictures are held out or in training."""
        self.store, self.models, self.shards, self.settings = store, models, shards, settings
        self.generator: Generator = assemble(store, models)
        self.pictures: Pictures = load_pictures(store, shards, settings.max_pictures)
        self.held_out = self.pictures.one_a_group(Split.TEST, settings.max_captions)
        self.train = self.pictures.train
        self.coarse = self.pictures.by_coarse(settings.min_word_pictures)
        if len(self.held_out) < 2 or len(self.train) < 2:
            raise InputError(
                "fewer than two captioned pictures are held out or trained on; tables are safe; name a longer list or raise plan.test_share"
            )

    def tower(self) -> dict[str, object]:
        """Return retrieval by the CLIP itself among held-out concepts, from text to image and from image to text."""
        text, image = self.pictures.text[self.held_out], self.pictures.image[self.held_out]
        return {
            "held-out concepts": len(self.held_out),
            "text to image": retrieval(text, image),
            "image to text": retrieval(image, text),
        }

    def priors(self) -> dict[str, object]:
        """Return every variant's measures by number of sampler steps."""
        settings = PriorSettings.recorded(self.models["prior"][0].settings["prior"])
        return {
            variant: self._prior(
                load_prior(self.store, self.models["prior"][0], self.models["shift"][0], variant), settings
            )
            for variant in settings.variants
        }

    def references(self) -> dict[str, object]:
        """Return the measures of references that need no training: the text embedding itself, and the softmax average of train pictures."""
        text, image = self.pictures.text[self.held_out], self.pictures.image[self.held_out]
        average = softmax_average(
            text,
            self.pictures.text[self.train],
            self.pictures.image[self.train],
            self.settings.softmax_temperature,
        )
        return {
            name: {"cosine": paired_cosine(vectors, image), **retrieval(vectors, image)}
            for name, vectors in (("text embedding", text), ("softmax average", average))
        }

    def coarse_truth(self) -> dict[str, float | None]:
        """Return the scores of perfect samples for the coarse captions; the floor compares true images with other true images."""
        if len(self.coarse) < 2:
            return {"words": len(self.coarse)}
        groups = [self.pictures.image[rows] for rows in self.coarse.values()]
        floor = frechet_distance(self._coarse_images(1), self._coarse_images(0))
        return {
            "words": len(self.coarse),
            "two-sample cosine of the truth": two_sample_cosine(groups, each="group"),
            "Frechet floor": floor,
        }

    def groups(self) -> dict[str, Int[np.ndarray, "rows"]]:
        """Return the rows that are painted, by label: one picture per group of the list, and at most `max_painted`.

        If the recipe names a column of concepts, held-out pictures whose concept was trained on have a label of their own, and labels
        with fewer than two pictures are left out.
        """
        train = self.pictures.one_a_group(Split.TRAIN, len(self.held_out))
        column, most = self.settings.concept_col, self.settings.max_painted
        if column is None:
            return {TRAIN: train[:most], HELD_OUT: self.held_out[:most]}
        trained = trained_concepts(self.store, self.shards, column)
        is_seen = np.array([self.pictures.saved[row].get(column) in trained for row in self.held_out])
        rows_of = {TRAIN: train, PAIR: self.held_out[is_seen], CONCEPT: self.held_out[~is_seen]}
        return {label: rows[:most] for label, rows in rows_of.items() if len(rows) > 1}

    def picture_judge(self) -> PictureJudge | None:
        """Return the judge with the training pictures for its comparisons; None if the recipe names no judge."""
        if self.settings.judge is None:
            return None
        judge = load_judge(self.settings.judge, self.generator.towers)
        side = min(self.generator.decoder.autoencoder.image_size, LARGEST_SIDE_PX)
        limit = self.settings.max_pictures
        training = load_training_pictures(self.store, self.shards, judge, side, limit)
        return PictureJudge(judge, training, side)

    def copy_search(self) -> CopySearch:
        """Return the search for copies of training pictures; its threshold is set by all held-out pictures that are measured."""
        decoder, held_out = self.generator.decoder, self.held_out
        true = own_pictures(self.store, self.shards, [self.pictures.uid[row] for row in held_out])
        latents = Latents(decoder.autoencoder, decoder.device, self.shards["autoencoder"])
        return CopySearch.of_run(self.store, self.shards, latents, true, self.settings.max_pictures)

    def decoded(
        self, label: str, chosen: Int[np.ndarray, "rows"], picture_judge: PictureJudge | None
    ) -> Decoded:
        """Paint from true and from sampled embeddings, and compare with the true pictures against a shuffled control."""
        true = own_pictures(self.store, self.shards, [self.pictures.uid[row] for row in chosen])
        painted = paint(self.generator, self.pictures, chosen, true, self.settings.seed)
        own = {way: self.generator.image_embedding(images).numpy() for way, images in painted.ways.items()}
        metrics = {way: own_similarity(vectors, painted.true_z.numpy()) for way, vectors in own.items()}
        shown = chosen[: self.settings.grid_rows]
        painted_set = PaintedSet([self.pictures.caption[row] for row in chosen], painted.ways, own)
        if picture_judge is None:
            columns = [painted.true, painted.ways[FROM_TRUE], painted.ways[FROM_PRIOR]]
            return Decoded(metrics, self._grid_rows(label, shown, columns), None, painted_set)
        judged = picture_judge.judge(painted, own, held_out=label != TRAIN)
        beside = {
            way: picture_judge.training.pictures(rows[: len(shown)]) for way, rows in judged.nearest.items()
        }
        columns = [painted.true]
        for way in (FROM_TRUE, FROM_PRIOR):
            columns += [painted.ways[way], beside[way]]
        uids = [
            [picture_judge.training.uid[judged.nearest[way][n]] for way in (FROM_TRUE, FROM_PRIOR)]
            for n in range(len(shown))
        ]
        return Decoded(metrics, self._grid_rows(label, shown, columns, uids), judged, painted_set)

    def _grid_rows(
        self,
        label: str,
        shown: Int[np.ndarray, "rows"],
        columns: list[list[Image.Image]],
        nearest: Sequence[Sequence[str]] = (),
    ) -> list[GridRow]:
        """Return the rows of the grid; `nearest` are the uids of the training pictures next to the painted ones; credits are shown only with them."""
        saved = self.pictures.saved
        return [
            GridRow(
                label,
                self.pictures.caption[row],
                [column[n] for column in columns],
                (saved[row].get(CREDIT_COLUMN) or "") if nearest else "",
                self.settings.seed + n,
                nearest[n] if nearest else (),
            )
            for n, row in enumerate(shown)
        ]

    def _prior(self, prior: TextPrior, settings: PriorSettings) -> dict[str, object]:
        image, text = self.pictures.image[self.held_out], tensor(self.pictures.text[self.held_out])
        encodings = self.generator.word_encodings([self.pictures.caption[row] for row in self.held_out])
        measures: dict[str, object] = {}
        for steps in self.settings.steps:
            sampling = Sampling(steps, settings.sampler, settings.guidance)
            seeds = [self.settings.seed + n for n in range(len(text))]
            sampled = prior.sample(text, seeds, sampling, encodings).cpu().numpy()
            measures[str(steps)] = {
                "cosine": paired_cosine(sampled, image),
                **retrieval(sampled, image),
                **self._coarse_fit(prior, sampling),
            }
        return measures

    def _coarse_fit(self, prior: TextPrior, sampling: Sampling) -> dict[str, float | None]:
        """Return two-sample cosine and Frechet distance of samples for the coarse captions; empty with fewer than two captions."""
        if len(self.coarse) < 2:
            return {}
        each = self.settings.samples_per_caption
        text = np.repeat(
            np.stack([self.pictures.coarse_text[rows[0]] for rows in self.coarse.values()]), each, axis=0
        )
        encodings = self.generator.word_encodings(list(self.coarse))
        drawn = prior.sample(
            tensor(text),
            [self.settings.seed + n for n in range(len(text))],
            sampling,
            None if encodings is None else encodings.repeat_interleave(each, 0),
        )
        sampled = drawn.cpu().numpy()
        groups = list(sampled.reshape(len(self.coarse), each, -1))
        return {
            "two_sample_cosine": two_sample_cosine(groups, each="group"),
            "frechet": frechet_distance(sampled, self._coarse_images(0)),
        }

    def _coarse_images(self, part: int) -> Float[np.ndarray, "rows dim"]:
        """Draw with replacement as many true images per coarse caption as there are samples; each `part` is a different draw."""
        generator = np.random.default_rng([self.settings.seed, part])
        return np.concatenate(
            [
                self.pictures.image[generator.choice(rows, self.settings.samples_per_caption)]
                for rows in self.coarse.values()
            ]
        )
