"""The prior, autoencoder and decoder stages."""

from corgi.flow.cluster import environment_beside
from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask


class Prior(Stage):
    """Caption to CLIP image embedding, one network per choice of (mu, Sigma)."""

    name, title, version = "prior", "Prior", 3
    intro = "From a caption to a CLIP image embedding, by diffusion. Each variant is one training."
    inputs, settings = ("embed", "curate", "shift"), ("prior",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit every variant's averaged weights and metric lines."""
        from corgi.training.prior import run

        return run(context)

    def cost(self, recipe: Recipe) -> list[str]:
        """Return FLOPs, memory and hours of a training on GPUs."""
        from corgi.training.cost import lines

        return lines(recipe)

    def side_by_side(self, recipe: Recipe) -> dict[str, str] | None:
        """Return the environment of the process that trains the prior beside the decoder.

        Ray starts a worker group completely or not at all, so neither stage can hold half of what the other waits for.
        Data is read inside the workers.
        """
        both = [recipe.prior.training, recipe.decoder.training]
        cpus = sum(training.num_workers * training.cpus_per_worker for training in both)
        gpus = sum(training.num_workers for training in both if training.use_gpu)
        return environment_beside(recipe, cpus, gpus)


class Autoencoder(Stage):
    """The space the decoder paints in, and every kept picture's latent."""

    name, title, intro = "autoencoder", "Autoencoder", "The space the decoder paints in."
    inputs, settings = ("download", "curate"), ("autoencoder",)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `autoencoder` (.safetensors), then one `latents` table per shard."""
        from corgi.training.autoencoder import run

        return run(context)


class Decoder(Stage):
    """CLIP image embedding to picture; no caption is needed."""

    name, title, intro = "decoder", "Decoder", "From a CLIP image embedding to a picture, by diffusion."
    inputs, settings, version = ("embed", "curate", "autoencoder"), ("decoder",), 2

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the averaged weights and metric lines."""
        from corgi.training.decoder import run

        return run(context)
