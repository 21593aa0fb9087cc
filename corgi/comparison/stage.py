"""The comparison stage: all scores, means and intervals over seeds, paired differences, and answers to the pre-registered questions."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from corgi.comparison.plot import plot_space
from corgi.comparison.scores import judge
from corgi.comparison.spaces import Space
from corgi.evaluation.metrics import MEASURES, ScoreRow, student_interval
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.settings.compare import CompareSettings, ScoreSettings
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.store import ShardTask, Store
from corgi.tracking.tracked_run import Shown, TrackedRun
from corgi.tracking.tracker import Tracker

FEW_STEPS, MANY_STEPS = 4, 64
BASELINE, CONTROL = "dalle2", "standardised"
NOTES = [
    "Frechet distance, MMD and two-sample cosine are of coarse captions shared by several pictures, train among them: fit, not generalisation.",
    "A two-sample cosine above the truth's is collapse: the samples of each are too much alike. Cosine to the truth rewards it (read them together).",
    "off_centre is synthetic: a fixed direction was added to every embedding, as real CLIP spaces lie off centre.",
]


class Way(NamedTuple):
    """How one arm was sampled in one space."""

    space: str
    arm: str
    candidates: int
    sampler: str
    steps: int

    @property
    def label(self) -> str:
        """Return the arm's name, with the number of candidates if there were several."""
        return self.arm if self.candidates == 1 else f"{self.arm}, best of {self.candidates}"


Found = Mapping[Way, Mapping[str, Float[np.ndarray, "seeds"]]]


def run(context: Context) -> list[ShardTask]:
    """Commit metrics.json, scores.json and one plot per space."""
    task = context.task("all")
    if make_pending(context, ComparisonShards, [task], Pool(), "comparison"):
        _track(context, task)
    return [task]


def _track(context: Context, task: ShardTask) -> None:
    """Send the comparison to the tracker as a run of its own: every score as a row, one plot per space."""
    made = context.store.read_shard(context.store.committed(task.stage, [task.key])[task.key])
    rows = json.loads(context.store.path(made, "scores").read_text())
    plots = {
        name: np.asarray(Image.open(context.store.path(made, f"plot_{name}")).convert("RGB"))
        for name in context.recipe.compare.spaces
    }
    config = {
        "settings": context.recipe.compare.model_dump(mode="json"),
        "seed": context.recipe.compare.seed,
    }
    folder = context.work_folder(task) / "tracking"
    tracked = TrackedRun("comparison", folder, context.run.folder.name, context.recipe.tracking, config)
    tracker = Tracker(tracked, 0)
    tracker.show(1, Shown(pictures=plots, tables={"scores": rows}))
    tracker.commit()
    tracker.finish()


class ComparisonShards:
    """Combine one run's scores."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit the comparison."""
        store = Store(task.root)
        settings = CompareSettings.model_validate(task.settings["compare"])
        scoring = ScoreSettings.model_validate(task.settings["score"])
        rows = [
            row
            for path in task.inputs["scores"]
            for row in json.loads(store.path(store.read_shard(path), "scores").read_text())
        ]
        spaces = {
            name: json.loads(store.path(shard, "facts").read_text())
            for name, shard in ((s.shard, s) for s in map(store.read_shard, task.inputs["spaces"]))
        }
        judges = {
            name: judge(store, task.inputs, Space(name, settings.offset), scoring) for name in settings.spaces
        }
        truth = {name: judges[name].truth() for name in settings.spaces}
        by_way = gathered(rows)
        metrics = {
            "truth": truth,
            "no training": {name: judges[name].references() for name in settings.spaces},
            "spaces": spaces,
            **report(by_way, truth, scoring.samplers[0]),
            "notes": NOTES,
        }
        with store.attempt(task) as attempt:
            attempt.write_bytes("metrics", ".json", json.dumps(metrics, indent=1).encode())
            attempt.write_bytes("scores", ".json", json.dumps(rows).encode())
            for name in settings.spaces:
                attempt.write_bytes(
                    f"plot_{name}", ".png", plot_space(name, lines_of(by_way, name), truth[name])
                )
            return attempt.commit(RowCounts(rows_in=len(rows), kept=len(rows)))


def gathered(rows: Iterable[ScoreRow]) -> Found:
    """Return every measure by way, one value per seed in the order of the seeds."""
    values: dict[Way, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        way = Way(row["space"], row["arm"], row["candidates"], row["sampler"], row["steps"])
        for name in MEASURES:
            values[way][name][row["seed"]] = row[name]
    return {
        way: {name: np.array([by_seed[s] for s in sorted(by_seed)]) for name, by_seed in measures.items()}
        for way, measures in values.items()
    }


def report(found: Found, truth: Mapping[str, Mapping[str, float]], sampler: str) -> dict[str, object]:
    """Return the tables of the report: means by arm and steps, and the answers to the pre-registered questions."""
    tables: dict[str, object] = {}
    for space in truth:
        means: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        for way, measures in found.items():
            if way.space == space and way.sampler == sampler:
                means[way.label][str(way.steps)] = {name: float(v.mean()) for name, v in measures.items()}
        tables[f"{space}, {sampler}, means over seeds"] = dict(means)
        tables[f"{space}, {FEW_STEPS} steps against {BASELINE} at {MANY_STEPS}"] = against_baseline(
            found, space, truth[space]["two_sample_cosine"]
        )
        tables[f"{space}, against {CONTROL} at the same sampler and steps"] = against_control(found, space)
    return tables


def best(found: Found, ways: Sequence[Way]) -> Way | None:
    """Return the way with the smallest mean Frechet distance; None if there are no ways."""
    return min(ways, key=lambda way: float(found[way]["frechet"].mean()), default=None)


def against_baseline(
    found: Found, space: str, true_spread: float, few_steps: int = FEW_STEPS
) -> dict[str, dict[str, object]]:
    """Return for every arm, at its best sampler with few steps, the paired differences to the baseline's best with many steps.

    The baseline's best is chosen over its samplers and numbers of candidates.

    An arm `wins` if the intervals of the differences in Frechet distance and in distance to the true spread are below 0, and its mean
    R@10 is not lower.
    """
    here = [way for way in found if way.space == space]
    many = best(found, [way for way in here if (way.arm, way.steps) == (BASELINE, MANY_STEPS)])
    if many is None:
        return {}
    table: dict[str, dict[str, object]] = {}
    for label in dict.fromkeys(way.label for way in here):
        few = best(found, [way for way in here if (way.label, way.steps) == (label, few_steps)])
        if few is None:
            continue
        frechet = difference(found[few]["frechet"], found[many]["frechet"])
        spread = difference(
            abs(found[few]["two_sample_cosine"] - true_spread),
            abs(found[many]["two_sample_cosine"] - true_spread),
        )
        retrieved = difference(found[few]["R@10"], found[many]["R@10"])
        wins = frechet[2] < 0 and spread[2] < 0 and retrieved[0] >= 0
        table[few.label] = {
            "sampler": few.sampler,
            "baseline": f"{many.label}, {many.sampler}",
            **_told("frechet", frechet),
            **_told("spread off by", spread),
            **_told("R@10", retrieved),
            "wins": "yes" if wins else "no",
        }
    return table


def against_control(found: Found, space: str, arm: str = CONTROL) -> dict[str, dict[str, float]]:
    """Return for every arm how often its Frechet distance is better and worse than the control's at the same sampler and steps."""
    table: dict[str, dict[str, float]] = {}
    for way, measures in found.items():
        control = found.get(way._replace(arm=arm, candidates=1))
        if way.space != space or control is None or (way.arm == arm and way.candidates == 1):
            continue
        row = table.setdefault(way.label, {"better at": 0, "no difference shown": 0, "worse at": 0})
        mean, low, high = difference(measures["frechet"], control["frechet"])
        key = "better at" if high < 0 else "worse at" if low > 0 else "no difference shown"
        row[key] += 1
        row[f"{way.sampler} {way.steps}"] = mean
    return table


def difference(a: Float[np.ndarray, "seeds"], b: Float[np.ndarray, "seeds"]) -> tuple[float, float, float]:
    """Return the mean of a - b, paired by seed, and its 95 % interval."""
    return float((a - b).mean()), *student_interval(a - b)


def _told(name: str, found: tuple[float, float, float]) -> dict[str, str]:
    mean, low, high = found
    known = f"{low:+.4f} to {high:+.4f}" if np.isfinite(low) else "one seed"
    return {name: f"{mean:+.4f} ({known})"}


def lines_of(found: Found, space: str) -> dict[str, Sequence[tuple[int, Mapping[str, np.ndarray]]]]:
    """Return each arm's measures by number of steps, at its best sampler for each; different numbers of candidates are separate lines."""
    lines: dict[str, dict[int, Way]] = defaultdict(dict)
    for way, measures in found.items():
        if way.space != space:
            continue
        kept = lines[way.label].get(way.steps)
        if kept is None or measures["frechet"].mean() < found[kept]["frechet"].mean():
            lines[way.label][way.steps] = way
    return {
        label: [(steps, found[by_steps[steps]]) for steps in sorted(by_steps)]
        for label, by_steps in lines.items()
    }
