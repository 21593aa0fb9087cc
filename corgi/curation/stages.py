"""The features stage and the curate stage."""

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask


class Features(Stage):
    """What tells duplicates and domains, read once from the stored images."""

    name, title = "features", "Features"
    intro = "What tells duplicates and domains, without the pictures."
    inputs, partition = ("download",), "download"

    def run(self, context: Context) -> list[ShardTask]:
        """Commit one `features` table per shard of the download."""
        from corgi.curation.features import run

        return run(context)


class Curate(Stage):
    """What is trained on, chosen over the whole set."""

    name, title, version = "curate", "Curate", 2
    intro = "What needs the whole set: a picture is dropped for one reason, and never changes its split."
    inputs, reads, settings = ("download", "embed"), ("features",), ("curate",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit one `selection` table per shard: every embedded picture, kept or dropped with a reason."""
        from corgi.curation.stage import run

        return run(context)

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return the pairs of hashes that are compared at most, where the rows are known.

        Raises:
            SettingsError: they are too many.

        """
        from corgi.curation.parts import pairs_line

        line = None if num_rows is None else pairs_line(num_rows, recipe.curate)
        return [] if line is None else [line]

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the versions of two kinds of duplicates.

        Semantic pairs of all clusters are decided together since 1. Before 1, rows that were nobody's copy were taken for exact
        duplicates where an earlier rule had dropped others.
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
