"""The plan stage."""

from collections.abc import Sequence

from corgi.flow.context import Context
from corgi.flow.stage import RevisableStage
from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask

FORMAT_VERSIONS = {
    "parquet": 0,
    "csv": 0,
    "tsv": 0,
    "jsonl": 0,
    "txt": 0,
    "webdataset": 0,
    "pictures": 0,
    "files": 0,
}
"""A format's version is raised when its rows are read differently and a list cannot be checked for that (corgi/sources/revision.py)."""


class Plan(RevisableStage):
    """Turns sources into rows with identities, captions, groups, splits and shards."""

    name, title, settings, version = "plan", "Plan", ("plan",), 2

    def run(self, context: Context) -> list[ShardTask]:
        """Commit one `plan` table per shard."""
        from corgi.planning.stage import run

        return run(context)

    def revise(self, context: Context, tasks: Sequence[ShardTask]) -> None:
        """Publish shards without the rows taken down."""
        from corgi.planning.revise import revise

        revise(context, tasks)

    def fingerprint(self, recipe: Recipe) -> list[str]:
        """Return the content hashes of the sources and blocklists."""
        from corgi.planning.blocklist import digests
        from corgi.sources.sources import sources

        return [*(source.meaning for source in sources(recipe.plan)), *digests(recipe.plan)]

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the versions of the formats of a recipe's sources."""
        from corgi.sources.sources import formats

        return {kind: FORMAT_VERSIONS[kind] for kind in sorted(formats(recipe.plan))}
