"""Published runs against the rates of `--plan`: no rate is one of the run that it is held against."""

from collections.abc import Callable
from dataclasses import dataclass

from corgi.budget.rates import Interval, exactly, load
from corgi.training.cost import PEAK_FLOPS

RATES = load()
LAION_400M_HOURS = 400e6 / 1300 / 3600
"""img2dataset's examples: LAION-400M at 1300 pictures/s on one machine of 16 cores and 2 Gbit/s."""


@dataclass(frozen=True)
class Check:
    """What the rates say of a run, and what was published of it, in one unit."""

    run: str
    counted: Interval
    published: float

    @property
    def is_held(self) -> bool:
        """Return whether the interval holds the published figure."""
        return self.counted.holds(self.published)

    @property
    def error(self) -> float:
        """Return the relative error of the interval's geometric middle."""
        return (self.counted.low * self.counted.high) ** 0.5 / self.published - 1


def mosaicml() -> Check:
    """Count the A100-hours of Stable Diffusion 2's U-Net from its FLOPs; published are $30.8 to 33.9 k at $2 an hour.

    1.13 B samples of 256 px at 543 GFLOP and 1.74 B of 512 px at 2.41 TFLOP, by the share of the peak of other runs.
    """
    flops = exactly(1.13e9 * 543e9 + 1.74e9 * 2.41e12)
    counted = flops / (RATES["gpu_share_of_peak"] * PEAK_FLOPS["A100"]) / 3600
    return Check("MosaicML's Stable Diffusion 2, U-Net, A100-hours", counted, (30.8e3 + 33.9e3) / 2 / 2)


def laion_by_network() -> Check:
    """Count the hours of 400 M pictures through 2 Gbit/s."""
    counted = RATES["web_bytes_per_url"] * (400e6 * 8 / 2e9) / 3600
    return Check("LAION-400M through 2 Gbit/s, hours", counted, LAION_400M_HOURS)


def laion_by_cpu() -> Check:
    """Count the hours on 16 cores at img2dataset's own speeds of other lists: CC12M 630 pictures/s on 16 cores, 100 a core."""
    speed = Interval(630 / 16, 100.0)
    counted = exactly(400e6) / (speed * 16) / 3600
    return Check(
        "LAION-400M on 16 cores, img2dataset's speeds on other lists, hours", counted, LAION_400M_HOURS
    )


CHECKS: tuple[Callable[[], Check], ...] = (mosaicml, laion_by_network, laion_by_cpu)
