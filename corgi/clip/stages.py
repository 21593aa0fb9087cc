"""The tower and embed stages, and the plan and embed stages over precomputed vectors."""

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
"""A part's version is raised when that part's output changes; all other vectors stay valid (docs/decisions/0007)."""
_TITLE = "Embeddings"
_INTRO = "One unit vector for each picture and caption. Full captions describe the picture, coarse ones only name its kind."


class Tower(Stage):
    """The run's own CLIP tower, trained on the train split."""

    name, title = "tower", "CLIP tower"
    intro = "An own CLIP model, trained on the captioned pictures of the train split."
    inputs, settings = ("download",), ("tower",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the model, and shard by shard the frozen features on which it is trained."""
        from corgi.clip.train import run

        return run(context)


class Embed(FollowingStage):
    """Unit vectors of pictures and captions, one per CLIP tower."""

    name, title, intro, settings = "embed", _TITLE, _INTRO, ("embed",)
    partition, version = "download", 2

    def __init__(self, has_tower: bool = False) -> None:
        """Read the tower stage's model too if the pipeline has that stage."""
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
        """Return the environment of the process that embeds; None if the cluster has no room for the pools of both stages."""
        cpus = sum(pool.num_actors * pool.cpus_per_actor for pool in (recipe.download, recipe.embed))
        return environment_beside(recipe, cpus, recipe.embed.num_actors * recipe.embed.gpus_per_actor)

    def fingerprint(self, recipe: Recipe) -> dict[str, str]:
        """Return the sha256 of every local checkpoint, config and head that the recipe names, since a path does not determine the content."""
        return _named_files(recipe)

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the versions of the parts of embed that a recipe uses."""
        settings = recipe.embed
        touched = {
            "own tower": not settings.towers or any(ref.pretrained == TRAINED for ref in settings.towers),
            "named towers": any(ref.pretrained != TRAINED for ref in settings.towers),
            "heads": bool(settings.heads),
            "tokens": bool(settings.tokens),
        }
        return {name: PART_VERSIONS[name] for name, is_touched in touched.items() if is_touched}


class PrecomputedPlan(Plan):
    """The plan over precomputed vectors, which are checked first."""

    def fingerprint(self, recipe: Recipe) -> list[str]:
        """Return the contents of the sources and blocklists.

        Raises:
            InputError: files are missing, or the widths of the vectors do not fit each other or the recipe's towers.

        """
        from corgi.clip.vector_inputs import check_vectors

        check_vectors(recipe.embed)
        return super().fingerprint(recipe)


class PrecomputedEmbed(Stage):
    """The same tables from precomputed vectors: no tower runs."""

    name, title, intro, settings = "embed", _TITLE, _INTRO, ("embed",)
    inputs, partition = ("plan", "download"), "download"

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `image_embeddings` and `caption_embeddings` of every planned shard."""
        from corgi.clip.precomputed import run

        return run(context)

    def fingerprint(self, recipe: Recipe) -> dict[str, str]:
        """Return the sha256 of every array of vectors, and of every local file that a tower or head names."""
        paths = {path for file in given_files(recipe.embed) for path, _ in file.arrays.values()}
        hashes = sorted(sha256_of(str(path)) for path in paths)
        return {f"array {number}": text for number, text in enumerate(hashes)} | _named_files(recipe)

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the versions of the vectors' file formats, and of heads if there are any."""
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
