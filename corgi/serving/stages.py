"""The index stage."""

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.tables.store import ShardTask


class Index(Stage):
    """What search needs of every embedded image, shard by shard: its vector as a code, and the columns by which it can be filtered."""

    name, title = "index", "Search index"
    intro = "The vectors of all embedded images as search stores them in memory."
    inputs = ("download", "embed", "curate")

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the shard `codec`, then one `rows` table per shard of embed."""
        from corgi.serving.index_stage import run

        return run(context)
