"""Prior and decoder trained at once where the cluster holds both worker groups."""

from typing import Any

from corgi.flow.cluster import environment_beside
from corgi.settings.training import TrainingSettings


def environment(recipe: Any) -> dict[str, str] | None:
    """Return the environment of the process that trains the prior beside the decoder, or None: one after the other.

    Ray gives a worker group whole or not at all, so neither can hold half of what the other waits for; the data feed reads
    inside the workers.
    """
    both = [recipe.prior.training, recipe.decoder.training]
    cpus = sum(settings.num_workers * settings.cpus_per_worker for settings in both)
    return environment_beside(recipe, cpus, sum(map(_gpus, both)))


def _gpus(settings: TrainingSettings) -> int:
    return settings.num_workers if settings.use_gpu else 0
