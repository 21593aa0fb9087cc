"""Corgi: from a list of image URLs to a text-to-image model by shifted diffusion, on one Ray cluster."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corgi.inference.generate import Generator
    from corgi.names import EmbedderName

__all__ = ["load"]


def load(folder: str | Path, embedder: "EmbedderName" = "prior") -> "Generator":
    """Load a finished run: `corgi.load("runs/openmoji").generate("a red heart", n=8, seed=0)` returns pictures.

    `embedder` names the method that turns captions into image embeddings: the run's prior, or a baseline (docs/generate.md).
    """
    from corgi.inference.loading import load as load_run

    return load_run(folder, embedder)
