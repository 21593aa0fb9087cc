"""The tower stage: an own open_clip model from packaged frozen trunks and heads trained on the train split."""

import json

from safetensors.torch import load_file, save
from torch import nn

from corgi.clip import backbones
from corgi.clip.features import FeatureRows, FeatureShards, feature_task, frozen_model, tower_settings
from corgi.clip.projection_heads import HeadsObjective
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.settings.errors import InputError, SettingsError
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask
from corgi.training.checkpoint import final_weights
from corgi.training.data_checks import check_val_rows
from corgi.training.trainer import train
from corgi.training.training import Training


def run(context: Context) -> list[ShardTask]:
    """Commit the frozen features, one shard per download shard, then the model: `config`, `checkpoint` and `metrics`.

    The model's shard comes first in the stage. A killed run loses at most one shard of features and the steps
    since the last checkpoint.

    Raises:
        InputError: fewer than two train pictures have a caption, or no val picture to rank checkpoints by.
        SettingsError: micro-batches are asked for, which would change the contrastive loss.

    """
    settings = tower_settings(context)
    if settings.training.micro_batch:
        raise SettingsError(
            f"tower.training.micro_batch={settings.training.micro_batch}: the CLIP loss compares the whole batch at once; nothing was started; leave it 0"
        )
    features = [feature_task(context, download) for download in context.shards("download")]
    model = context.task("model")
    arguments = {"settings": settings.model_dump(mode="json")}
    make_pending(context, FeatureShards, features, Pool(settings.num_actors), "tower", arguments)
    if context.pending([model]):
        connect(context.recipe)
        _commit_model(context, model, _training(context, model, features))
    return [model, *features]


def _training(context: Context, model: ShardTask, features: list[ShardTask]) -> Training:
    settings = tower_settings(context)
    committed = [context.store.shard(task.stage, task.key) for task in features]
    return Training(
        name="tower",
        folder=str(context.work_folder(model)),
        objective=HeadsObjective,
        arguments={
            "root": model.root,
            "features": [shard.path for shard in committed if shard is not None],
            "settings": settings.model_dump(mode="json"),
        },
        settings=settings.training,
        tracking=context.recipe.tracking,
        group=context.run.folder.name,
        seed=settings.seed,
    )


def _commit_model(context: Context, task: ShardTask, training: Training) -> None:
    """Train the heads, put them into the open_clip model and commit it as config and checkpoint."""
    settings = tower_settings(context)
    rows = FeatureRows(training.arguments["root"], training.arguments["features"], Split.TRAIN)
    if sum(rows.counts) < 2:
        raise InputError(
            f"{sum(rows.counts)} train pictures have a full caption, and a CLIP tower learns from at least two; committed work is safe; "
            "name plan.caption_col, or a pretrained model in embed.towers"
        )
    val = FeatureRows(training.arguments["root"], training.arguments["features"], Split.VAL)
    check_val_rows(val, settings.training)
    train([training], context.recipe)
    objective = HeadsObjective(**training.arguments)
    heads = objective.model().eval()
    heads.load_state_dict(load_file(final_weights(training)))
    model, _, _ = frozen_model(settings)
    heads.put_into(model, objective.mean, objective.scale)
    facts = {**objective.evaluate(heads), "train_pictures": sum(rows.counts), "packages": backbones.facts()}
    with context.store.attempt(task) as attempt:
        attempt.write_bytes("config", ".json", _json(backbones.portable_config(settings)))
        attempt.write_bytes("checkpoint", ".safetensors", checkpoint(model))
        attempt.write_bytes("metrics", ".json", _json(facts))
        attempt.commit(RowCounts(rows_in=0, kept=0), facts=facts)


def checkpoint(model: nn.Module) -> bytes:
    """Return an open_clip model's state dict as safetensors, loadable by open_clip itself."""
    return save({name: value.contiguous() for name, value in model.state_dict().items()})


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
