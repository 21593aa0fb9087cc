"""The autoencoder stage."""

from pathlib import Path

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.latents.perceptual_tower import perceptual_tower
from corgi.names import TRAINED_SPACES
from corgi.settings.clip import TRAINED, TowerRef
from corgi.settings.recipe import Recipe
from corgi.storage.files import sha256_of_file
from corgi.tables.store import ShardTask


class Autoencoder(Stage):
    """The latent space in which the decoder paints, and every kept picture's latent."""

    name, title, intro = "autoencoder", "Autoencoder", "The space the decoder paints in."
    settings = ("autoencoder",)

    def __init__(self, reads_tower: bool = False) -> None:
        """Read the tower stage's model too if the perceptual loss needs it."""
        super().__init__()
        self.inputs = ("download", "curate", "tower") if reads_tower else ("download", "curate")

    @classmethod
    def of(cls, recipe: Recipe) -> "Autoencoder":
        """Return the stage of a recipe."""
        return cls(perceptual_tower(recipe) == TRAINED)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the shard `model`, then one `latents` table per shard."""
        from corgi.latents.stage import run

        return run(context)

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the version of the convolutional autoencoder's first weights if the recipe trains one."""
        return {"start": 1} if recipe.autoencoder.kind in TRAINED_SPACES else {}

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return lines with FLOPs, memory and hours of a training on GPUs, and the cost of the latents."""
        from corgi.latents.cost import lines

        return lines(recipe)

    def fingerprint(self, recipe: Recipe) -> dict[str, str] | None:
        """Return what settings and inputs do not determine: hashes of the files of a pretrained autoencoder or of a perceptual loss's tower."""
        if recipe.autoencoder.kind == "pretrained":
            settings = recipe.autoencoder.pretrained
            return _files_of(Path(settings.path) / settings.subfolder) or None
        tower = perceptual_tower(recipe)
        if not isinstance(tower, TowerRef):
            return None
        named = [Path(path) for path in (tower.pretrained, tower.config) if path is not None]
        files = {path.name: sha256_of_file(path) for path in named if path.is_file()}
        return {"tower": f"{tower.model} {'' if files else tower.pretrained}", **files}


def _files_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of a local folder's files by name; empty for a hub id."""
    files = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".safetensors", ".bin"))
    return {path.name: sha256_of_file(path) for path in files}
