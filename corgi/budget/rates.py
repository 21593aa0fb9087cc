"""Rates and prices as intervals, from rates.yaml and a user's file that overrides it."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from corgi.settings.errors import InputError
from corgi.training.cost import PEAK_FLOPS

_GROUPS = ("prices", "encoders")
"""Entries of the table that contain other entries by name."""


@dataclass(frozen=True)
class Interval:
    """The bounds of a quantity."""

    low: float
    high: float

    def __add__(self, other: "Interval") -> "Interval":
        """Return the interval of a sum."""
        return Interval(self.low + other.low, self.high + other.high)

    def __mul__(self, other: "Interval | float") -> "Interval":
        """Return the interval of a product of non-negative quantities."""
        if isinstance(other, Interval):
            return Interval(self.low * other.low, self.high * other.high)
        return Interval(self.low * other, self.high * other)

    def __truediv__(self, other: "Interval | float") -> "Interval":
        """Return the interval of a quotient; the divisor is positive."""
        if isinstance(other, Interval):
            return Interval(self.low / other.high, self.high / other.low)
        return Interval(self.low / other, self.high / other)

    def at_most(self, value: float) -> "Interval":
        """Return the interval of the smaller of a quantity and a value."""
        return Interval(min(self.low, value), min(self.high, value))

    def holds(self, value: float) -> bool:
        """Return whether a value is within the interval."""
        return self.low <= value <= self.high


def exactly(value: float) -> Interval:
    """Return the interval of one value."""
    return Interval(value, value)


def largest(intervals: list[Interval]) -> Interval:
    """Return the interval of the largest of some quantities."""
    return Interval(max(found.low for found in intervals), max(found.high for found in intervals))


@dataclass(frozen=True)
class Encoder:
    """A text encoder: the number of parameters applied to each token, and the width of a token's state."""

    parameters: Interval
    width: int


@dataclass(frozen=True)
class Rates:
    """The table of rates.yaml, with some entries replaced by a user's own."""

    table: dict[str, Any]

    def __getitem__(self, name: str) -> Interval:
        """Return one rate."""
        low, high = self.table[name]["value"]
        return Interval(float(low), float(high))

    def encoder(self, model: str) -> Encoder | None:
        """Return the size of a text encoder by its hub id; None if the table has no such encoder."""
        entry = self.table["encoders"].get(model)
        return None if entry is None else Encoder(Interval(*map(float, entry["value"])), int(entry["width"]))

    def price(self, machine: str) -> Interval | None:
        """Return dollars per hour of a machine on demand; None if the table has no such machine."""
        entry = self.table["prices"].get(machine)
        return None if entry is None else Interval(*map(float, entry["value"]))

    def gpu(self, machine: str) -> str | None:
        """Return the name of a machine's GPU; None if it is unknown."""
        return (self.table["prices"].get(machine) or {}).get("gpu")

    def peak_flops(self, machine: str) -> float | None:
        """Return the peak FLOP/s of one GPU of a machine; None if it is unknown."""
        gpu = self.gpu(machine)
        return None if gpu is None else PEAK_FLOPS.get(gpu)


def load(own: str = "") -> Rates:
    """Return the rates, in which the entries of a user's file replace those with the same name.

    Raises:
        InputError: the file cannot be read, or an entry does not have the table's form.

    """
    table = yaml.safe_load((resources.files("corgi.budget") / "rates.yaml").read_text())
    if not own:
        return Rates(table)
    try:
        found = yaml.safe_load(Path(own).read_text()) or {}
        unknown = found.keys() - table.keys()
        if unknown:
            raise ValueError(f"no rate is named {min(unknown)}")
        groups = {name: {**table[name], **found.get(name, {})} for name in _GROUPS}
        for entry in [
            *(found[name] for name in found if name not in _GROUPS),
            *(entry for group in groups.values() for entry in group.values()),
        ]:
            low, high = entry["value"]
            if not 0 < float(low) <= float(high):
                raise ValueError(f"{entry['value']} is not an interval")
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"cluster.rates={own} is not a table of rates ({' '.join(str(error).split())[:120]}); nothing was started; use the form of corgi/budget/rates.yaml"
        ) from error
    return Rates({**table, **found, **groups})
