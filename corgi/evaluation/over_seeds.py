"""The measures of trainings of one recipe with several seeds: means with intervals, nested as the measures are."""

from collections.abc import Mapping, Sequence

import numpy as np

from corgi.evaluation.metrics import student_interval

DIGITS = 4
"""Significant digits of a mean and of its interval's bounds."""
_OWN_INTERVAL = ("low 95%", "high 95%")
"""Suffixes of the names of a single training's interval over pictures."""


def over_seeds(measures: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return every measure that all trainings have as "mean (low to high)", the 95 % interval over trainings (Student).

    Texts and notes are left out, and so are each training's intervals over pictures. A measure that is equal in all trainings has no
    interval.
    """
    means: dict[str, object] = {}
    for name, first in measures[0].items():
        values = [each.get(name) for each in measures]
        if isinstance(first, Mapping):
            groups = [value for value in values if isinstance(value, Mapping)]
            inner = over_seeds(groups) if len(groups) == len(values) else {}
            means |= {name: inner} if inner else {}
        elif not name.endswith(_OWN_INTERVAL):
            numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            means |= {name: told(numbers)} if len(numbers) == len(values) else {}
    return means


def told(values: Sequence[float]) -> str:
    """Return a mean and its 95 % interval; the mean alone for one value, or equal ones."""
    mean = float(np.mean(values))
    if len(values) < 2 or max(values) == min(values):
        return f"{mean:.{DIGITS}g}"
    low, high = student_interval(np.array(values))
    return f"{mean:.{DIGITS}g} ({low:.{DIGITS}g} to {high:.{DIGITS}g})"
