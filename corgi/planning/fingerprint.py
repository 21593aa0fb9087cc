"""What a plan depends on outside the store."""

from corgi.planning.blocklist import digests as blocklist_digests
from corgi.settings.recipe import Recipe
from corgi.sources.sources import formats, sources

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
"""Raised when rows of a format are read otherwise and no look at a list tells whether its own are (corgi/sources/revision.py)."""


def fingerprint(recipe: Recipe) -> list[str]:
    """Return what the plan depends on outside the store: the contents of its sources and blocklists."""
    return [*(source.meaning for source in sources(recipe.plan)), *blocklist_digests(recipe.plan)]


def parts(recipe: Recipe) -> dict[str, int]:
    """Return the versions of the formats of a recipe's sources."""
    return {kind: FORMAT_VERSIONS[kind] for kind in sorted(formats(recipe.plan))}
