"""The linear space: principal components of the train pictures, fitted by the driver."""

import pyarrow.compute as pc
import torch
from torch import Tensor

from corgi.feeding.pictures import kept_pictures, square_pictures
from corgi.flow import screen
from corgi.flow.context import Context
from corgi.models.autoencoder import Autoencoder, fit_linear
from corgi.settings.models import AutoencoderSettings
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask
from corgi.training.autoencoder import write_autoencoder
from corgi.training.data_checks import check_pictures_differ

_MEASURED_PICTURES = 512


def commit_linear(context: Context, task: ShardTask) -> None:
    """Fit the components and commit the shard `model`.

    Raises:
        InputError: no two train pictures differ.

    """
    settings: AutoencoderSettings = context.recipe.autoencoder
    pictures = torch.cat(list(_train_pictures(context, settings)))
    generator = torch.Generator().manual_seed(settings.seed)
    chosen = torch.randperm(len(pictures), generator=generator)[: settings.max_fit_rows].sort().values
    autoencoder = fit_linear(pictures[chosen], settings.latent_dim, settings.seed)
    facts = {
        "kind": settings.kind,
        "train_pictures": len(chosen),
        "latent_dim": autoencoder.latent_dim,
        "latent_shape": list(autoencoder.latent_shape),
        "train_variance_kept": _explained(autoencoder, pictures[chosen[:_MEASURED_PICTURES]]),
    }
    with context.store.attempt(task) as attempt:
        write_autoencoder(attempt, autoencoder, {})
        attempt.commit(RowCounts(rows_in=len(chosen), kept=len(chosen)), facts=facts)


def _train_pictures(context: Context, settings: AutoencoderSettings) -> list[Tensor]:
    loaded = []
    pairs = list(zip(context.shards("download"), context.shards("curate"), strict=True))
    with screen.bar("autoencoder fit", len(pairs), "shard") as bar:
        for num_read, (images, selection) in enumerate(pairs, 1):
            kept = kept_pictures(context.store, images.path, selection.path, ["image"])
            train = kept.filter(pc.field("split") == Split.TRAIN.value)
            if train.num_rows:
                loaded.append(square_pictures(train["image"], settings.image_size))
            if sum(map(len, loaded)) >= settings.max_fit_rows:
                break
            bar.reach(num_read)
    check_pictures_differ(loaded)
    return loaded


def _explained(autoencoder: Autoencoder, pictures: Tensor) -> float:
    """Return the share of the pictures' variance that a round trip keeps."""
    error = (autoencoder.decode(autoencoder.encode(pictures)) - pictures).square().mean()
    return round(float(1 - error / (pictures - pictures.mean(0)).square().mean()), 4)
