"""The cost of each stage of a run: rows, shards, wall time, bytes and dollars."""

from collections.abc import Sequence
from dataclasses import dataclass

from corgi.report import charts, stage_graph
from corgi.report.committed import Committed


@dataclass(frozen=True)
class StageCost:
    """The cost of a stage: its inputs, rows, shards, wall time, the bytes it stored and, if prices were known, dollars."""

    stage: str
    inputs: Sequence[str]
    rows_in: int
    kept: int
    shards: int
    time: str
    stored: str
    dollars: str = ""


def stored_bytes(run: Committed, stage: str) -> int:
    """Return the size in bytes of the files of a stage's shards."""
    return sum(entry.size for shard in run.listed(stage) for entry in shard.files)


def cost(run: Committed, stage: str, num_bytes: int) -> StageCost:
    """Return the cost of a stage; `num_bytes` is the size of its stored files."""
    manifest = run.stages[stage]
    return StageCost(
        stage,
        list(manifest.inputs),
        manifest.rows.rows_in,
        manifest.rows.kept,
        len(manifest.shards),
        stage_graph.duration(manifest.seconds),
        charts.byte_size(num_bytes),
        between([bounds] if (bounds := dollars(run, stage)) else []),
    )


def dollars(run: Committed, stage: str) -> tuple[float, float] | None:
    """Return the lowest and highest cost noted for a stage, in dollars; None if it was made again since, or has no price."""
    noted = (run.facts.get("dollars") or {}).get(stage)
    if noted is None or noted["manifest"] != run.stages[stage].path:
        return None
    low, high = noted["between"]
    return low, high


def between(bounds: Sequence[tuple[float, float]]) -> str:
    """Format the sum of intervals of dollars, to the cent; empty if there are none."""
    if not bounds:
        return ""
    cents = [round(sum(values), 2) for values in zip(*bounds, strict=True)]
    if not cents[-1]:
        return "under 0.01"
    low, high = (f"{value:,.2f}".removesuffix(".00") for value in cents)
    return low if low == high else f"{low} to {high}"
