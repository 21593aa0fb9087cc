"""Prior and decoder trained at once where the cluster holds both worker groups."""

from typing import Any

from corgi.flow.cluster import connect, is_of_this_command, shared
from corgi.settings.training import TrainingSettings

FREE_CPUS = 1.0
"""Left to the tasks of the driver and to stages between the trainings; the data feed reads inside the workers."""


def environment(recipe: Any) -> dict[str, str] | None:
    """Return the environment of the process that trains the prior beside the decoder, or None: one after the other.

    Ray gives a worker group whole or not at all, so neither can hold half of what the other waits for.
    """
    if not recipe.cluster.side_by_side:
        return None
    connect(recipe)
    return shared() if has_room(recipe) else None


def has_room(recipe: Any) -> bool:
    """Say whether the cluster as it is holds both worker groups and FREE_CPUS; one that is not this command's may grow."""
    import ray

    if not is_of_this_command() and recipe.cluster.grows:
        return True
    have = ray.cluster_resources()
    both = [recipe.prior.training, recipe.decoder.training]
    cpus = sum(settings.num_workers * settings.cpus_per_worker for settings in both)
    return cpus + FREE_CPUS <= have.get("CPU", 0) and sum(map(_gpus, both)) <= have.get("GPU", 0)


def _gpus(settings: TrainingSettings) -> int:
    return settings.num_workers if settings.use_gpu else 0
