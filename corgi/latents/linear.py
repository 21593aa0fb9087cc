"""The linear space: principal components of the train pictures, fitted by one worker."""

from collections.abc import Mapping

import torch
from torch import Tensor

from corgi.feeding.pictures import UNIT_PICTURES, PictureSet, square_pictures
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.demand import Demand
from corgi.flow.executor import is_in_process
from corgi.flow.shards import check_room
from corgi.flow.tasks import Tasks, values_of
from corgi.models.autoencoder import Autoencoder, fit_linear
from corgi.settings.models import AutoencoderSettings
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from corgi.training.autoencoder import write_autoencoder
from corgi.training.data_checks import check_pictures_differ

_MEASURED_PICTURES = 512
_PROCESS_BYTES = 2**30
"""Memory of a worker with torch, scikit-learn and one shard of stored pictures, before any picture is decoded."""


def commit_linear(context: Context, task: ShardTask) -> None:
    """Fit the components on a worker and commit the shard `model`.

    Raises:
        InputError: no two train pictures differ.
        ClusterError: no node of this command's Ray has the memory for `max_fit_rows` pictures.

    """
    settings: AutoencoderSettings = context.recipe.autoencoder
    connect(context.recipe)
    stages = {name: context.inputs[name].path for name in ("download", "curate")}
    memory = fit_bytes(settings, context.inputs["curate"].rows.kept)
    if not is_in_process():
        reservations = ("autoencoder.max_fit_rows", "autoencoder.cpus_per_actor")
        check_room(Demand("autoencoder", 1, settings.cpus_per_actor, 0.0, "", reservations, memory))
    calls = Tasks(memory, settings.cpus_per_actor)
    fit = calls.start(fit_and_commit, task, stages, settings.model_dump(mode="json"))
    values_of([fit], "autoencoder fit")


def fit_bytes(settings: AutoencoderSettings, num_pictures: int) -> int:
    """Return the most memory that the fit needs, bytes: every value as a byte, as a float, and as a centred float."""
    rows = min(num_pictures, settings.max_fit_rows)
    return _PROCESS_BYTES + rows * 3 * settings.image_size**2 * (1 + 4 + 4)


def fit_and_commit(task: ShardTask, stages: Mapping[str, str], values: Mapping[str, object]) -> None:
    """Fit the components on the train pictures of the stages with these manifests, and commit the shard `model`."""
    settings = AutoencoderSettings.model_validate(values)
    store = Store(task.root)
    torch.set_num_threads(max(1, int(settings.cpus_per_actor)))
    pictures = torch.cat(_train_pictures(PictureSet.open(task.root, stages), settings))
    generator = torch.Generator().manual_seed(settings.seed)
    chosen = torch.randperm(len(pictures), generator=generator)[: settings.max_fit_rows].sort().values
    measured = pictures[chosen[:_MEASURED_PICTURES]] / 255
    autoencoder = fit_linear(pictures[chosen] / 255, settings.latent_dim, settings.seed)
    facts = {
        "kind": settings.kind,
        "train_pictures": len(chosen),
        "latent_dim": autoencoder.latent_dim,
        "latent_shape": list(autoencoder.latent_shape),
        "train_variance_kept": _explained(autoencoder, measured),
    }
    with store.attempt(task) as attempt:
        write_autoencoder(attempt, autoencoder, {})
        attempt.commit(RowCounts(rows_in=len(chosen), kept=len(chosen)), facts=facts)


def _train_pictures(pictures: PictureSet, settings: AutoencoderSettings) -> list[Tensor]:
    """Return pictures as bytes, shard by shard, until there are at least `max_fit_rows`."""
    loaded: list[Tensor] = []
    for shard in range(len(pictures)):
        train = pictures.kept(shard, Split.TRAIN, ["image"])
        for first in range(0, train.num_rows, UNIT_PICTURES):
            squares = square_pictures(train["image"].slice(first, UNIT_PICTURES), settings.image_size)
            loaded.append((squares * 255).round().to(torch.uint8))
        if sum(map(len, loaded)) >= settings.max_fit_rows:
            break
    check_pictures_differ(loaded)
    return loaded


def _explained(autoencoder: Autoencoder, pictures: Tensor) -> float:
    """Return the share of the pictures' variance that is kept by encoding and decoding."""
    error = (autoencoder.decode(autoencoder.encode(pictures)) - pictures).square().mean()
    return round(float(1 - error / (pictures - pictures.mean(0)).square().mean()), 4)
