"""Files of a run in addition to its tables: report.html, metrics.json and samples/grid.png."""

from corgi.report import report
from corgi.tables.run import Run

_COPIES = {"metrics": "metrics.json", "grid": "samples/grid.png"}


def publish(run: Run) -> None:
    """Write the report about the stages that are complete, and the evaluation's files once they are committed."""
    if "evaluate" in run.stages():
        shard = run.shards("evaluate")[0]
        for table, name in _COPIES.items():
            run.publish(name, run.store.path(shard, table).read_bytes())
    report.write(run)
