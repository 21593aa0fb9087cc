"""What a plan depends on outside the store."""

from corgi.planning.blocklist import digests as blocklist_digests
from corgi.settings.recipe import Recipe
from corgi.sources.sources import sources


def fingerprint(recipe: Recipe) -> list[str]:
    """Return what the plan depends on outside the store: the contents of its sources and blocklists."""
    return [*(source.meaning for source in sources(recipe.plan)), *blocklist_digests(recipe.plan)]
