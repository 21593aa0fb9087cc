"""The index stage."""

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.tables.store import ShardTask


class Index(Stage):
    """What search reads of every embedded image, shard by shard: its vector as a code, and what it can be chosen by."""

    name, title = "index", "Search index"
    intro = "The vectors of all embedded images as search holds them in memory."
    inputs = ("download", "embed", "curate")

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the shard `codec`, then one `rows` table per shard of embed."""
        from corgi.serving.index_stage import run

        return run(context)
