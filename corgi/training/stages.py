"""The stages of prior, decoder and upsamplers."""

from corgi.flow.cluster import environment_beside
from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.names import TRAINED_SPACES
from corgi.settings.recipe import Recipe
from corgi.settings.training import TrainingSettings
from corgi.tables.store import ShardTask


class Prior(Stage):
    """Caption to CLIP image embedding, one network per choice of (mu, Sigma)."""

    name, title, version = "prior", "Prior", 3
    intro = "From a caption to a CLIP image embedding, by diffusion. Each variant is one training."
    settings = ("prior",)

    def __init__(self, reads_words: bool = False) -> None:
        """Add the embed stage to the inputs if the network reads word encodings."""
        super().__init__()
        self.inputs = ("pack", "shift", "embed") if reads_words else ("pack", "shift")

    @classmethod
    def of(cls, recipe: Recipe) -> "Prior":
        """Return the stage of a recipe."""
        return cls(recipe.prior.num_text_tokens > 0)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit every variant's averaged weights and metric lines."""
        from corgi.training.prior import run

        return run(context)

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return FLOPs, memory and hours of a training on GPUs."""
        from corgi.training.cost import lines

        return lines(recipe)

    def fingerprint(self, recipe: Recipe) -> dict[str, str] | None:
        """Return the digest of the prior that this one starts from; None for none."""
        from corgi.training.init_from import fingerprint, prior_init

        return fingerprint(prior_init(recipe))

    def side_by_side(self, recipe: Recipe) -> dict[str, str] | None:
        """Return the environment of a process that trains the prior concurrently with the autoencoder, decoder and upsamplers, which run one after another.

        Ray starts a worker group completely or not at all, so neither stage can hold half of the workers that the other waits for.
        Data is read inside the workers.
        """
        others = [recipe.decoder.training, *(step.training for step in recipe.upsamplers.values())]
        if recipe.autoencoder.kind in TRAINED_SPACES:
            others.append(recipe.autoencoder.training)
        cpus = _cpus(recipe.prior.training) + max(map(_cpus, others))
        gpus = _gpus(recipe.prior.training) + max(map(_gpus, others))
        return environment_beside(recipe, cpus, gpus)


class Decoder(Stage):
    """CLIP image embedding to picture; no caption is needed."""

    name, title, intro = "decoder", "Decoder", "From a CLIP image embedding to a picture, by diffusion."
    settings, version = ("decoder",), 2

    def __init__(self, reads_words: bool = False) -> None:
        """Add the embed stage to the inputs if the network reads word encodings."""
        super().__init__()
        self.inputs = ("pack", "shift", "autoencoder", *(("embed",) if reads_words else ()))

    @classmethod
    def of(cls, recipe: Recipe) -> "Decoder":
        """Return the stage of a recipe."""
        return cls(recipe.decoder.num_text_tokens > 0)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the averaged weights and metric lines."""
        from corgi.training.decoder import run

        return run(context)

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return FLOPs, memory and hours of a training on GPUs."""
        from corgi.training.cost import decoder_cost, network_lines

        return network_lines(recipe.decoder, decoder_cost(recipe))

    def fingerprint(self, recipe: Recipe) -> dict[str, str] | None:
        """Return the hashes of the trained weights that the decoder starts from; None for none."""
        from corgi.training.init_from import decoder_init, fingerprint

        return fingerprint(decoder_init(recipe))


class Upsampler(Stage):
    """A step of the cascade: a smaller picture and its image embedding to a larger picture."""

    intro = "From a smaller picture to a larger one, by diffusion on pixels."
    inputs = ("download", "pack", "shift")

    def __init__(self, name: str) -> None:
        """Create the stage of the upsampler whose section in the recipe is `name`."""
        super().__init__()
        self.name, self.settings = name, (name,)
        self.title = name.replace("_", " ").capitalize()

    def run(self, context: Context) -> list[ShardTask]:
        """Commit the averaged weights and metric lines."""
        from corgi.training.upsampler import run

        return run(context)

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return FLOPs, memory and hours of a training on GPUs."""
        from corgi.training.cost import network_lines, upsampler_cost

        return network_lines(recipe.upsamplers[self.name], upsampler_cost(recipe, self.name))


def _cpus(training: TrainingSettings) -> float:
    return training.num_workers * training.cpus_per_worker


def _gpus(training: TrainingSettings) -> int:
    return training.num_workers if training.use_gpu else 0
