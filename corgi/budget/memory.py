"""Checks before anything starts that the GPUs which each training may get have the memory for its state; the error names the setting to change."""

from collections.abc import Iterator
from typing import NamedTuple

from corgi.budget.rates import Rates
from corgi.flow.demand import Demand, demands
from corgi.flow.node_types import NodeTypes
from corgi.latents.cost import autoencoder_cost
from corgi.names import TRAINED_SPACES
from corgi.settings.errors import ClusterError
from corgi.settings.recipe import Recipe
from corgi.settings.training import TrainingSettings
from corgi.training.cost import (
    EMA_BYTES,
    GPU_BYTES,
    TrainingCost,
    cost_of,
    decoder_cost,
    heads_cost,
    upsampler_cost,
)


class _Trained(NamedTuple):
    """A stage that trains, and the cost of its model; None if its sizes are not known yet."""

    stage: str
    training: TrainingSettings
    cost: TrainingCost | None


def check_memory(recipe: Recipe, unfinished: list[str], cluster: NodeTypes, rates: Rates) -> None:
    """Check that the largest GPU which the workers of each training may get has the memory for one worker's state.

    Activations, and a tower that only compares pictures, are not counted, so that only trainings that could never run are rejected.
    GPUs that are not in the table of rates are assumed to have enough memory.

    Raises:
        ClusterError: it does not; the message names the stage, bytes, GPU and the setting to change.

    """
    for trained in _trainings(recipe):
        if trained.stage in unfinished and trained.training.use_gpu and trained.cost is not None:
            [asked] = [each for each in demands(recipe, [trained.stage]) if each.together]
            _check(trained, trained.cost, _largest_gpu(asked, cluster, rates), cluster)


def _trainings(recipe: Recipe) -> Iterator[_Trained]:
    if recipe.tower is not None:
        yield _Trained("tower", recipe.tower.training, heads_cost(recipe.tower))
    yield _Trained("prior", recipe.prior.training, cost_of(recipe))
    if recipe.autoencoder.kind in TRAINED_SPACES:
        yield _Trained("autoencoder", recipe.autoencoder.training, autoencoder_cost(recipe.autoencoder))
    yield _Trained("decoder", recipe.decoder.training, decoder_cost(recipe))
    for name, step in recipe.upsamplers.items():
        yield _Trained(name, step.training, upsampler_cost(recipe, name))


def _largest_gpu(asked: Demand, cluster: NodeTypes, rates: Rates) -> str | None:
    """Return the largest GPU that a training's workers may get; None if one of the GPUs is unknown, or there is none."""
    fitting = [kind for kind in cluster.types if kind.num_workers(asked.cpus, asked.gpus)]
    names = [rates.gpu(kind.machine or kind.name) for kind in fitting]
    known = [name for name in names if name in GPU_BYTES]
    return max(known, key=lambda name: GPU_BYTES[name]) if known and len(known) == len(names) else None


def _check(trained: _Trained, cost: TrainingCost, gpu: str | None, cluster: NodeTypes) -> None:
    stage, training = trained.stage, trained.training
    needed = needed_bytes(cost, training)
    if gpu is None or needed <= GPU_BYTES[gpu]:
        return
    raise ClusterError(
        f"{stage} cannot be trained on {cluster.source}: weights, gradients, optimizer and averages are {needed / 1e9:.1f} GB per GPU "
        f"at ZeRO stage {training.zero_stage} with {training.num_workers} workers, but its largest GPU ({gpu}) has {GPU_BYTES[gpu] / 1e9:.0f} GB; "
        f"committed work is safe; {_remedy(trained, cost, GPU_BYTES[gpu])}"
    )


def needed_bytes(cost: TrainingCost, training: TrainingSettings) -> float:
    """Return the bytes of state on one GPU, without activations."""
    count = training.num_workers
    if training.offload:  # optimizer, masters and averages are in the node's memory
        split = {1: 4.0, 2: 2 + 2 / count, 3: 4 / count}[training.zero_stage]
        return split * cost.parameters
    averages = EMA_BYTES / count * cost.parameters * cost.averages
    return cost.state_bytes(training.zero_stage, count) + averages


def _remedy(trained: _Trained, cost: TrainingCost, have: float) -> str:
    """Return the smallest change of settings with which the state fits."""
    stage, training = trained.stage, trained.training
    for change in _changes(training):
        if needed_bytes(cost, training.model_copy(update=change)) <= have:
            told = " and ".join(
                f"{stage}.training.{name}={str(value).lower()}" for name, value in change.items()
            )
            return f"set {told}, or use larger GPUs"
    return f"use larger GPUs, more {stage}.training.num_workers or a smaller {stage}"


def _changes(training: TrainingSettings) -> Iterator[dict[str, int | bool]]:
    yield from ({"zero_stage": stage} for stage in range(training.zero_stage + 1, 4))
    yield from ({"zero_stage": stage, "offload": True} for stage in range(max(1, training.zero_stage), 4))
