"""The shift stage's plots as PNG bytes: occupancy, spectrum, cosines, and real pictures of each cluster."""

import io
from collections.abc import Mapping, Sequence
from typing import TypedDict

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

DPI = 110
_BLUE, _ORANGE = "#3b6ea5", "#c8692c"
_THUMB_PX, _LABEL_PX = 72, 92


class CosineCounts(TypedDict):
    """A histogram of cosines over [-1, 1] with equal bins; the mean is None if there are no cosines."""

    mean: float | None
    counts: list[int]


Curves = TypedDict(
    "Curves",
    {
        "images per cluster": dict[str, int],
        "variance by component": dict[str, float],
        "cosines": dict[str, CosineCounts],
    },
)
"""curves.json: the data of the plots, by the number of the cluster or component."""


def occupancy(count: Int[np.ndarray, "k"]) -> bytes:
    """Return the plot of pictures per cluster, largest first, with the mean as a line."""
    figure, axes = _figure("Cluster occupancy", "cluster, largest first", "train pictures")
    axes.bar(
        np.arange(len(count)), np.sort(count)[::-1], width=1.0, color=_BLUE, edgecolor="white", linewidth=0.3
    )
    axes.axhline(count.mean(), color=_ORANGE, linewidth=1, label=f"even share {count.mean():.0f}")
    axes.legend(frameon=False)
    return _png(figure)


def spectrum(eigenvalues: Float[np.ndarray, "dim"]) -> bytes:
    """Return the plot of the eigenvalues of the global covariance, with a line at 1/d, the value for uniformly distributed unit vectors."""
    figure, axes = _figure("Spectrum of the global covariance", "component", "variance")
    ranks = np.arange(1, len(eigenvalues) + 1)
    axes.loglog(ranks, np.maximum(eigenvalues, 1e-12), color=_BLUE)
    axes.axhline(1 / len(eigenvalues), color=_ORANGE, linewidth=1, label="1/d")
    axes.legend(frameon=False)
    return _png(figure)


def cosines(groups: Mapping[str, Float[np.ndarray, "n"]]) -> bytes:
    """Return the plot of one histogram of cosines per group, as shares, on one axis from -1 to 1."""
    figure, axes = _figure("Cosines", "cosine", "share of pairs")
    bins = np.linspace(-1, 1, 81).tolist()
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, max(1, len(groups))))
    for colour, (name, values) in zip(colours, groups.items(), strict=True):
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            label = f"{name} (mean {values.mean():.2f})"
            axes.hist(
                values, bins, weights=weights, histtype="step", color=colour, linewidth=1.5, label=label
            )
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> bytes:
    """Return a picture with one labelled row of thumbnails per cluster."""
    columns = max((len(pictures) for _, pictures in rows), default=1)
    sheet = Image.new("RGB", (_LABEL_PX + columns * _THUMB_PX, max(1, len(rows)) * _THUMB_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (label, pictures) in enumerate(rows):
        draw.multiline_text((6, y * _THUMB_PX + 20), label, fill="black")
        for x, picture in enumerate(pictures):
            thumb = picture.convert("RGB")
            thumb.thumbnail((_THUMB_PX - 4, _THUMB_PX - 4))
            sheet.paste(thumb, (_LABEL_PX + x * _THUMB_PX + 2, y * _THUMB_PX + 2))
    body = io.BytesIO()
    sheet.save(body, "PNG")
    return body.getvalue()


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    body = io.BytesIO()
    figure.savefig(body, format="png", metadata={"Software": None})
    return body.getvalue()
