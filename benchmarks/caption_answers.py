"""The answers that the experiment with few captions announced, from the files that its arms left."""

import io
from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from benchmarks.arms import File
from corgi.evaluation.metrics import student_interval

SET, FEWEST, ALL = "HELD-OUT PAIR", 0.017, 1.0
ASKED_2 = ("R@1", "Frechet")
"""Measures of question 2; a smaller Frechet distance is better, of R@1 a larger value."""
WITHOUT = ("text embedding", "nearest pictures", "lafite-fixed")
"""Methods that use no caption of the pictures."""
Values = Float[np.ndarray, "seeds"]


def by_seed(
    files: Sequence[File], method: str, share: float, measure: str, held_out: str = SET
) -> dict[int, float]:
    """Return a measure of a method at a share, by seed in ascending order; empty if no arm has it."""
    found = {
        one["seed"]: one["figures"][method][held_out][measure]
        for one in files
        if one["share"] == share and held_out in one["figures"].get(method, {})
    }
    return dict(sorted(found.items()))


def values(files: Sequence[File], method: str, share: float, measure: str, held_out: str = SET) -> Values:
    """Return the values of `by_seed`."""
    return np.array(list(by_seed(files, method, share, measure, held_out).values()))


def priors_of(files: Sequence[File]) -> list[str]:
    """Return the names of the priors that arms have."""
    return sorted({name for one in files for name in one["figures"] if name.startswith("prior ")})


def minus(files: Sequence[File], first: tuple[str, float], second: tuple[str, float], measure: str) -> Values:
    """Return first minus second, each a method and a share, paired by seed; empty unless both have the same seeds."""
    one, other = (by_seed(files, *way, measure) for way in (first, second))
    return np.array([one[seed] - other[seed] for seed in one]) if one.keys() == other.keys() else np.array([])


def best_prior(files: Sequence[File], share: float) -> str | None:
    """Return the prior of largest mean R@1 at a share; None if no arm has one."""
    known = [name for name in priors_of(files) if len(values(files, name, share, "R@1"))]
    return max(known, key=lambda name: float(values(files, name, share, "R@1").mean()), default=None)


def told(found: Values) -> str:
    """Write a mean and its 95 % interval."""
    if not len(found):
        return "not run"
    low, high = student_interval(found)
    return f"{found.mean():+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if len(found) > 1 else "")


def kept_rows(files: Sequence[File], measure: str = "R@1") -> Iterable[list[str]]:
    """Yield question 1: for each prior what captions add to a measure at 100 %, and the share of it that is kept at 1.7 %."""
    text = ("text embedding", 0.0)
    for name in priors_of(files):
        all_of_them = minus(files, (name, ALL), text, measure)
        few = minus(files, (name, FEWEST), text, measure)
        if not len(all_of_them) or len(few) != len(all_of_them):
            continue
        low, high = student_interval(all_of_them)
        if low <= 0 <= high:
            yield [name, told(all_of_them), "", "cannot be asked at this size"]
            continue
        kept = few / all_of_them
        yield [name, told(all_of_them), told(kept), _side(kept, 0.8, "enough", "not enough")]


def without_rows(files: Sequence[File]) -> Iterable[list[str]]:
    """Yield question 2: methods without captions of the pictures minus the best prior at 1.7 %."""
    best = best_prior(files, FEWEST)
    if best is None:
        return
    for name in WITHOUT:
        found = {measure: minus(files, (name, 0.0), (best, FEWEST), measure) for measure in ASKED_2}
        worse = [
            _side(found["R@1"], 0, "", "worse") == "worse",
            _side(found["Frechet"], 0, "worse", "") == "worse",
        ]
        cells = [told(found[measure]) for measure in ASKED_2]
        asked = all(len(one) > 1 for one in found.values())
        yield [name, best, *cells, ("no" if any(worse) else "yes") if asked else "not run"]


def lafite_rows(files: Sequence[File], measure: str = "R@1") -> Iterable[list[str]]:
    """Yield questions 3 and 4: pairs of language-free methods by a measure of which more is better."""
    fixed = ("lafite-fixed", 0.0)
    for number, first, second in (
        ("3", fixed, ("lafite-trained", ALL)),
        ("4", ("retrieved", ALL), fixed),
        ("4", ("retrieved", FEWEST), fixed),
    ):
        found = minus(files, first, second, measure)
        yield [number, _way(first), _way(second), told(found), _side(found, 0, "yes", "no")]


def plot(files: Sequence[File], measure: str = "R@1") -> bytes:
    """Return PNG bytes: a measure by share of captions, a panel for each set of held-out pictures; dashed lines use none.

    Points stand a little aside of their share, so that the bars of two methods do not cover each other.
    """
    sets = dict.fromkeys(name for one in files for figures in one["figures"].values() for name in figures)
    methods = sorted({method for one in files for method in one["figures"]})
    colours = dict(zip(methods, mpl.colormaps["tab10"](np.linspace(0, 1, 10)), strict=False))
    figure = Figure(figsize=(13, 5), dpi=110, layout="constrained")
    for axes, held_out in zip(np.atleast_1d(figure.subplots(1, max(1, len(sets)))), sets, strict=False):
        for place, method in enumerate(methods):
            aside = 1.03 ** (place - len(methods) / 2)
            found = {share: values(files, method, share, measure, held_out) for share in (FEWEST, 0.1, ALL)}
            points = {share: each for share, each in found.items() if len(each)}
            if points:
                half = [
                    each.mean() - student_interval(each)[0] if len(each) > 1 else 0
                    for each in points.values()
                ]
                mean = [each.mean() for each in points.values()]
                axes.errorbar(
                    [100 * share * aside for share in points],
                    mean,
                    half,
                    label=method,
                    color=colours[method],
                    marker="o",
                )
            elif len(none := values(files, method, 0.0, measure, held_out)):
                axes.axhline(
                    none.mean(), label=f"{method}, no captions", color=colours[method], linestyle="--"
                )
        axes.set(xscale="log", xlabel="pictures with a caption, %", ylabel=measure, title=held_out)
        axes.set_xticks([1.7, 10, 100], ["1.7", "10", "100"])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    body = io.BytesIO()
    figure.savefig(body, format="png", metadata={"Software": None})
    return body.getvalue()


def _way(way: tuple[str, float]) -> str:
    return f"{way[0]}, {100 * way[1]:g} %"


def _side(found: Values, of: float, above: str, below: str) -> str:
    """Say on which side of a value an interval lies."""
    if len(found) < 2:
        return "not run"
    low, high = student_interval(found)
    return above if low > of else below if high < of else "not shown"
