"""The pack stage."""

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.settings.tower_width import towers_width
from corgi.tables.store import ShardTask


class Pack(Stage):
    """The training table: what prior and decoder read about the kept pictures, in the order and the row groups in which they read it."""

    name, title = "pack", "Training table"
    intro = "Vectors of the kept pictures and of the captions used for training, written so that a training reads each row once."
    inputs, settings, partition = ("embed", "curate"), ("pack",), "embed"

    def run(self, context: Context) -> list[ShardTask]:
        """Commit one `rows` table per shard."""
        from corgi.feeding.pack import run

        return run(context)

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return a line with the size of the table: at most a tenth more than the vectors of pictures with one caption each."""
        dim = towers_width(recipe)
        if dim is None:
            return []
        number, of_what = (num_rows, "") if num_rows else (1_000_000, " per million pictures")
        size = 1.1 * 4 * dim * number / 1e9
        return [
            f"pack: at most {size:.3g} GB{of_what}, two vectors of {dim} half floats per kept picture with one caption"
        ]
