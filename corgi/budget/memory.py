"""Whether the GPUs that a training may get hold its state: refused before anything starts, with the setting to change."""

from collections.abc import Iterator

from corgi.budget.rates import Rates
from corgi.flow.demand import demands
from corgi.flow.node_types import NodeTypes
from corgi.settings.errors import ClusterError
from corgi.settings.recipe import Recipe
from corgi.settings.training import TrainingSettings
from corgi.training.cost import EMA_BYTES, GPU_BYTES, TrainingCost, cost_of


def check_memory(recipe: Recipe, unfinished: list[str], cluster: NodeTypes, rates: Rates) -> None:
    """Check that the largest GPU which the prior's workers may get holds the state of one of them.

    Activations are not counted: what is refused could never have run. GPUs that the table of rates does not know hold anything.
    The decoder's and the autoencoder's states are not compared.

    Raises:
        ClusterError: it does not; the line names bytes, GPU and the setting to change.

    """
    training = recipe.prior.training
    cost = cost_of(recipe) if "prior" in unfinished and training.use_gpu else None
    if cost is None:
        return
    needed = needed_bytes(cost, training)
    asked = next(iter(demands(recipe, ["prior"])))
    fitting = [kind for kind in cluster.types if kind.num_workers(asked.cpus, asked.gpus)]
    names = [rates.gpu(kind.machine or kind.name) for kind in fitting]
    sizes = {name: GPU_BYTES[name] for name in names if name in GPU_BYTES}
    if not names or len(sizes) < len(set(names)) or needed <= max(sizes.values()):
        return
    largest = max(sizes, key=lambda name: sizes[name])
    raise ClusterError(
        f"prior cannot be trained on {cluster.source}: weights, gradients, optimizer and averages are {needed / 1e9:.1f} GB per GPU "
        f"at ZeRO stage {training.zero_stage} with {training.num_workers} workers, and its largest GPU ({largest}) holds {sizes[largest] / 1e9:.0f} GB; "
        f"committed work is safe; {_remedy(cost, training, sizes[largest])}"
    )


def needed_bytes(cost: TrainingCost, training: TrainingSettings) -> float:
    """Return the bytes of state on one GPU, without activations."""
    count = training.num_workers
    if training.offload:  # optimizer, masters and averages are in the node's memory
        split = {1: 4.0, 2: 2 + 2 / count, 3: 4 / count}[training.zero_stage]
        return split * cost.parameters
    return cost.state_bytes(training.zero_stage, count) + EMA_BYTES / count * cost.parameters


def _remedy(cost: TrainingCost, training: TrainingSettings, have: float) -> str:
    """Return the mildest change of settings that fits."""
    for change in _changes(training):
        if needed_bytes(cost, training.model_copy(update=change)) <= have:
            told = " and ".join(
                f"prior.training.{name}={str(value).lower()}" for name, value in change.items()
            )
            return f"set {told}, or take larger GPUs"
    return "take larger GPUs, more prior.training.num_workers or a smaller prior"


def _changes(training: TrainingSettings) -> Iterator[dict[str, int | bool]]:
    yield from ({"zero_stage": stage} for stage in range(training.zero_stage + 1, 4))
    yield from ({"zero_stage": stage, "offload": True} for stage in range(max(1, training.zero_stage), 4))
