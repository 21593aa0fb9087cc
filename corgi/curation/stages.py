"""The curate stage."""

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.tables.store import ShardTask


class Curate(Stage):
    """What is trained on, chosen over the whole set."""

    name, title, version = "curate", "Curate", 2
    intro = "What needs the whole set: a picture is dropped for one reason, and never changes its split."
    inputs, settings = ("download", "embed"), ("curate",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit one `selection` table per shard: every embedded picture, kept or dropped with a reason."""
        from corgi.curation.stage import run

        return run(context)
