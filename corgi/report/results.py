"""A run's own files beside its tables: report.html, metrics.json and samples/grid.png."""

from corgi.report import report
from corgi.tables.run import Run

_COPIES = {"metrics": "metrics.json", "grid": "samples/grid.png"}


def publish(run: Run) -> None:
    """Write the report of the stages that are there, and the evaluation's files once they are committed."""
    if "evaluate" in run.stages():
        shard = run.shards("evaluate")[0]
        for table, name in _COPIES.items():
            run.publish(name, run.store.path(shard, table).read_bytes())
    report.write(run)
