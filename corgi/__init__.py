"""Corgi: from a list of image URLs to a text-to-image model by shifted diffusion, on one Ray cluster."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corgi.inference.generate import Generator

__all__ = ["load"]


def load(folder: str | Path) -> "Generator":
    """Load a finished run: `corgi.load("runs/openmoji").generate("a red heart", n=8, seed=0)` returns pictures."""
    from corgi.inference.loading import load as load_run

    return load_run(folder)
