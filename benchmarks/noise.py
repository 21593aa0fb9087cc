"""A training's noise beside numpy's own generators: `make bench-noise`.

The peer draws each row with a Philox4x64 of numpy, seeded by the row's position as ours is; torch.randn, which knows no position, is
the floor. One thread; rounds alternate. Prints one line a figure and writes benchmarks/results/noise.json.
"""

import argparse
import functools
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.figures import Figures, alternated, ratios
from corgi.feeding.noise import Noise

GOAL_RATIO = 1.3
SHAPES = ((64, (1536,)), (512, (1536,)), (32, (4, 32, 32)), (64, (3, 64, 64)))
"""Rows and the shape of a row's noise: the prior's on one GPU and on eight, latents, pixels."""
SECONDS = 0.5


def ours(rows: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a batch's noise as a training draws it."""
    return Noise(7, torch.arange(rows), "cpu").normal(shape, 3)


def numpys(rows: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return as much noise by one generator of numpy per row."""
    size = int(np.prod(shape))
    drawn = [
        np.random.Generator(np.random.Philox(key=[7, 3], counter=[0, 0, row, 0])).standard_normal(
            size, np.float32
        )
        for row in range(rows)
    ]
    return torch.from_numpy(np.stack(drawn)).view(rows, *shape)


def torchs(rows: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return as much noise by torch's generator, whatever the rows."""
    return torch.randn(rows, *shape)


def seconds_of(draw: Callable[[], torch.Tensor]) -> float:
    """Return the seconds of one call, over as many calls as half a second holds."""
    draw()
    calls, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < SECONDS:
        draw()
        calls += 1
    return taken / calls


def main() -> None:
    """Time every shape in alternating rounds and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    figures = Figures("noise", "torch", "numpy")
    for rows, shape in SHAPES:
        sides = (functools.partial(side, rows, shape) for side in (ours, numpys, torchs))
        own, numpy_s, torch_s = alternated(rounds, *(functools.partial(seconds_of, side) for side in sides))
        name = "x".join(map(str, (rows, *shape)))
        values = rows * int(np.prod(shape))
        figures.add_rounds(f"noise_{name}", [1e9 * s / values for s in own], "ns per value")
        figures.add_rounds(f"noise_{name}_over_numpy", ratios(own, numpy_s), "ratio", f"<={GOAL_RATIO}")
        figures.add_rounds(f"noise_{name}_over_torch_randn", ratios(own, torch_s), "ratio")
    figures.write()


if __name__ == "__main__":
    main()
