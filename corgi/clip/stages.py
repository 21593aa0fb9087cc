"""The tower and embed stages, and plan and embed over vectors made elsewhere."""

from pathlib import Path

from corgi.clip.references import given_files
from corgi.flow.cluster import environment_beside
from corgi.flow.context import Context
from corgi.flow.stage import Arriving, FollowingStage, Stage
from corgi.planning.stages import Plan
from corgi.settings.clip import TRAINED
from corgi.settings.recipe import Recipe
from corgi.storage.files import sha256_of_file
from corgi.storage.paths import sha256_of
from corgi.tables.store import ShardTask

PART_VERSIONS = {"own tower": 0, "named towers": 0, "heads": 0, "tokens": 0, "npy": 0, "npz": 0}
"""Raised when what touches that part comes out otherwise: all other vectors stay (docs/decisions/0007)."""
_TITLE = "Embeddings"
_INTRO = "One unit vector for each picture and caption. Full captions describe the picture, coarse ones only name its kind."


class Tower(Stage):
    """An own CLIP tower, trained on the train split."""

    name, title = "tower", "CLIP tower"
    intro = "An own CLIP model, trained on the captioned pictures of the train split."
    inputs, settings = ("download",), ("tower",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the model, and the frozen features it learns from shard by shard."""
        from corgi.clip.train import run

        return run(context)


class Embed(FollowingStage):
    """Pictures and captions to unit vectors, one per CLIP tower."""

    name, title, intro, settings = "embed", _TITLE, _INTRO, ("embed",)
    partition, version = "download", 2

    def __init__(self, has_tower: bool = False) -> None:
        """Read the tower stage's model too where there is one."""
        super().__init__()
        self.inputs = ("download", "tower") if has_tower else ("download",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `image_embeddings` and `caption_embeddings` of every download shard."""
        from corgi.clip.embed import run

        return run(context)

    def follow(self, context: Context, arriving: Arriving) -> None:
        """Embed shards as they are downloaded."""
        from corgi.clip.embed import follow

        follow(context, arriving)

    def side_by_side(self, recipe: Recipe) -> dict[str, str] | None:
        """Return the environment of the process that embeds; None where the cluster cannot hold the pools of both."""
        cpus = sum(pool.num_actors * pool.cpus_per_actor for pool in (recipe.download, recipe.embed))
        return environment_beside(recipe, cpus, recipe.embed.num_actors * recipe.embed.gpus_per_actor)

    def fingerprint(self, recipe: Recipe) -> dict[str, str]:
        """Return the sha256 of every local checkpoint, config and head the recipe names: what a path cannot say."""
        return _named_files(recipe)

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the versions of the parts of embed that a recipe touches."""
        settings = recipe.embed
        touched = {
            "own tower": not settings.towers or any(ref.pretrained == TRAINED for ref in settings.towers),
            "named towers": any(ref.pretrained != TRAINED for ref in settings.towers),
            "heads": bool(settings.heads),
            "tokens": bool(settings.tokens),
        }
        return {name: PART_VERSIONS[name] for name, is_touched in touched.items() if is_touched}


class PrecomputedPlan(Plan):
    """The plan over vectors made elsewhere, which are checked first."""

    def fingerprint(self, recipe: Recipe) -> list[str]:
        """Return the contents of the sources and blocklists.

        Raises:
            InputError: files are missing, or vectors do not fit each other or the recipe's towers.

        """
        from corgi.clip.vector_inputs import check_vectors

        check_vectors(recipe.embed)
        return super().fingerprint(recipe)


class PrecomputedEmbed(Stage):
    """The same tables from vectors made elsewhere: no tower runs."""

    name, title, intro, settings = "embed", _TITLE, _INTRO, ("embed",)
    inputs, partition = ("plan", "download"), "download"

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `image_embeddings` and `caption_embeddings` of every planned shard."""
        from corgi.clip.precomputed import run

        return run(context)

    def fingerprint(self, recipe: Recipe) -> dict[str, str]:
        """Return the sha256 of every array of vectors, and of what the towers name."""
        paths = {path for file in given_files(recipe.embed) for path, _ in file.arrays.values()}
        hashes = sorted(sha256_of(str(path)) for path in paths)
        return {f"array {number}": text for number, text in enumerate(hashes)} | _named_files(recipe)

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the versions of the formats of the vectors, and of their scores."""
        paths = [path for file in given_files(recipe.embed) for path, _ in file.arrays.values()]
        touched = [*sorted({path.suffix[1:] for path in paths}), *(["heads"] if recipe.embed.heads else [])]
        return {name: PART_VERSIONS[name] for name in touched}


def _named_files(recipe: Recipe) -> dict[str, str]:
    named = [(ref.name, path) for ref in recipe.embed.towers for path in (ref.pretrained, ref.config)]
    named += [(ref.name, ref.file) for ref in recipe.embed.heads]
    found = {}
    for name, path in named:
        if path is not None and Path(path).is_file():
            found[f"{name} {Path(path).name}"] = sha256_of_file(Path(path))
    return found
