"""The shift stage."""

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask


class Shift(Stage):
    """Computes (mu, Sigma) of each cluster of the image embeddings."""

    name, title, version = "shift", "Shift", 2
    intro = "Centre and scale of the training pictures' embeddings, cluster by cluster: where shifted diffusion starts from."
    inputs, settings = ("download", "embed", "curate"), ("shift",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `shift` (.safetensors), the sums it was computed from, `statistics`, `curves` (.json) and `plot_*` (.png)."""
        from corgi.shift.stage import run

        return run(context)

    def fingerprint(self, recipe: Recipe) -> dict[str, str]:
        """Return the digest of the statistics that the stage continues, if there are any."""
        from corgi.clip.references import shift_of

        return {} if recipe.shift.update is None else {"update": shift_of(recipe.shift.update)[1].digest}

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return a line with the memory that the stage needs.

        Raises:
            SettingsError: it is more than the recipe allows.

        """
        from corgi.shift.memory import plan_lines

        return plan_lines(recipe)
