"""The features stage and the curate stage."""

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask


class Features(Stage):
    """Hashes and domains for finding duplicates, read once from the stored images."""

    name, title = "features", "Features"
    intro = "Hashes and domains for finding duplicates, without the pictures."
    inputs, partition = ("download",), "download"

    def run(self, context: Context) -> list[ShardTask]:
        """Commit one `features` table per shard of the download."""
        from corgi.curation.features import run

        return run(context)


class Curate(Stage):
    """Chooses the pictures to train on, over the whole set."""

    name, title, version = "curate", "Curate", 2
    intro = "Rules that need the whole set: a picture is dropped for one reason, and never changes its split."
    inputs, reads, settings = ("download", "embed"), ("features",), ("curate",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit one `selection` table per shard: every embedded picture, kept or dropped with a reason."""
        from corgi.curation.stage import run

        return run(context)

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return a line with the largest number of pairs of hashes compared, if the number of rows is known.

        Raises:
            SettingsError: they are too many.

        """
        from corgi.curation.parts import pairs_line

        line = None if num_rows is None else pairs_line(num_rows, recipe.curate)
        return [] if line is None else [line]

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the versions of two kinds of duplicates.

        Since version 1, semantic pairs of all clusters are decided together. Before it, rows that were copies of no other row were
        wrongly dropped as exact duplicates if an earlier rule had dropped other rows.
        """
        settings = recipe.curate
        has_earlier_rule = bool(settings.scores) or any(
            asked is not None
            for asked in (settings.preset, settings.min_similarity, settings.placeholder_min_urls)
        )
        touched = {
            "semantic duplicates": settings.semantic_cosine is not None,
            "exact duplicates after other rules": settings.exact_duplicates and has_earlier_rule,
        }
        return {name: 1 for name, is_touched in touched.items() if is_touched}
