"""The download stage, and the same stage over precomputed vectors."""

from collections.abc import Sequence

from corgi.flow.context import Context
from corgi.flow.stage import RevisableStage
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask

PART_VERSIONS = {
    "fetch native": 0,
    "fetch img2dataset": 0,
    "pictures there": 0,
    **dict.fromkeys(("decode JPEG", "decode PNG", "decode WEBP", "decode GIF"), 0),
    **dict.fromkeys(("decode BMP", "decode TIFF", "decode AVIF"), 0),
    **dict.fromkeys(("resize border", "resize keep_ratio", "resize keep_ratio_largest"), 0),
    **dict.fromkeys(("resize center_crop", "resize no"), 0),
    **dict.fromkeys(("encode jpg", "encode png", "encode webp"), 0),
    "caption languages": 0,
}
"""A part's version is raised when that part's output changes; all other downloads stay valid (docs/decisions/0007)."""


class Download(RevisableStage):
    """Turns planned rows into pictures and captions; each row is kept or rejected with a reason."""

    name, title, inputs, settings = "download", "Download", ("plan",), ("download",)
    partition, version = "plan", 4

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `images`, `captions` and `ledger` of every shard of the plan."""
        from corgi.download.stage import run

        return run(context)

    def revise(self, context: Context, tasks: Sequence[ShardTask]) -> None:
        """Publish new versions of shards: with failed rows fetched again, or without the rows taken down."""
        from corgi.download.revise import revise

        revise(context, tasks)

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the versions of the parts that process a recipe's images."""
        from corgi.sources.sources import HOLD_PICTURES, formats

        settings = recipe.download
        found = formats(recipe.plan)
        touched = [
            *([f"fetch {settings.engine}"] if found - HOLD_PICTURES else []),
            *(["pictures there"] if found & HOLD_PICTURES else []),
            *(f"decode {name}" for name in settings.formats),
            f"resize {settings.resize_mode}",
            f"encode {settings.encode_format}",
            *(["caption languages"] if settings.filter.caption_languages else []),
        ]
        return {name: PART_VERSIONS[name] for name in touched}


class PrecomputedDownload(RevisableStage):
    """The same tables for rows with precomputed vectors: nothing is fetched, and no picture is stored."""

    name, title, inputs, settings, partition = "download", "Download", ("plan",), ("download",), "plan"

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `images`, `captions` and `ledger` of every shard of the plan."""
        from corgi.download.precomputed import run

        return run(context)

    def revise(self, context: Context, tasks: Sequence[ShardTask]) -> None:
        """Publish shards without the rows taken down.

        Raises:
            InputError: rows should be fetched again, but none was ever fetched.

        """
        from corgi.download.revise import revise

        if any("retry" in task.payload["amend"] for task in tasks):
            raise InputError(
                "--retry-failed: embed.input names vectors, so nothing was fetched; nothing is lost; run a recipe that downloads"
            )
        revise(context, tasks)
