"""The pack stage."""

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.settings.tower_width import towers_width
from corgi.tables.store import ShardTask


class Pack(Stage):
    """The training table: what prior and decoder read of the kept pictures, in the order and in the pieces they read it."""

    name, title = "pack", "Training table"
    intro = "Vectors of the kept pictures and of the captions learned from, written so that a training reads each row once."
    inputs, settings, partition = ("embed", "curate"), ("pack",), "embed"

    def run(self, context: Context) -> list[ShardTask]:
        """Commit one `rows` table per shard."""
        from corgi.feeding.pack import run

        return run(context)

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return the bytes that the table takes, those of the vectors of pictures with one caption and a tenth more at most."""
        dim = towers_width(recipe)
        if dim is None:
            return []
        number, of_what = (num_rows, "") if num_rows else (1_000_000, " per million pictures")
        size = 1.1 * 4 * dim * number / 1e9
        return [
            f"pack: at most {size:.3g} GB{of_what}, two vectors of {dim} half floats per kept picture with one caption"
        ]
