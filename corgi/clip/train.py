"""The tower stage: an open_clip model with frozen trunks from packages and heads trained on the train split."""

import json

from safetensors.torch import load_file, save
from torch import nn

from corgi.clip import backbones
from corgi.clip.feature_rows import FeatureSet
from corgi.clip.features import FeatureShards, feature_task, frozen_model, tower_settings
from corgi.clip.projection_heads import HeadsObjective
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.settings.errors import InputError, SettingsError
from corgi.settings.training import TrainingSettings
from corgi.tables.manifest import RowCounts
from corgi.tables.store import ShardTask
from corgi.training.checkpoint import final_weights
from corgi.training.data_checks import check_val
from corgi.training.trainer import train
from corgi.training.training import Training


def run(context: Context) -> list[ShardTask]:
    """Commit the frozen features, one shard per download shard, then the model: `config`, `checkpoint` and `metrics`.

    The model's shard comes first in the stage. A killed run loses at most one shard of features and the steps
    since the last checkpoint.

    Raises:
        InputError: fewer than two train pictures have a caption, or checkpoints are ranked and no val picture has one.
        SettingsError: micro-batches are set, which would change the contrastive loss.

    """
    settings = tower_settings(context)
    if settings.training.micro_batch:
        raise SettingsError(
            f"tower.training.micro_batch={settings.training.micro_batch}: the CLIP loss compares the whole batch at once; nothing was started; leave it at 0"
        )
    features = [feature_task(context, download) for download in context.entries("download")]
    model = context.task("model")
    arguments = {"settings": settings.model_dump(mode="json")}
    make_pending(context, FeatureShards, features, Pool(settings.num_actors), "tower", arguments)
    if context.pending([model]):
        paths = context.store.committed(model.stage, [task.key for task in features])
        feature_set = FeatureSet.read(context.store, [paths[task.key] for task in features])
        check_rows(feature_set, settings.training)
        connect(context.recipe)
        _commit_model(context, model, _training(context, model, feature_set))
    return [model, *features]


def check_rows(features: FeatureSet, settings: TrainingSettings) -> None:
    """Check that there are pictures to train on and, if checkpoints are ranked, to evaluate on.

    Raises:
        InputError: there are too few.

    """
    num_train = sum(shard.train for shard in features.shards)
    if num_train < 2:
        raise InputError(
            f"{num_train} train pictures have a full caption, but a CLIP tower needs at least two; committed work is safe; "
            "set plan.caption_col, or name a pretrained model in embed.towers"
        )
    check_val(sum(shard.val for shard in features.shards), settings)


def _training(context: Context, model: ShardTask, features: FeatureSet) -> Training:
    settings = tower_settings(context)
    return Training(
        name="tower",
        folder=str(context.work_folder(model)),
        objective=HeadsObjective,
        arguments={
            "root": model.root,
            **features.as_arguments(),
            "settings": settings.model_dump(mode="json"),
        },
        settings=settings.training,
        tracking=context.recipe.tracking,
        group=context.run.folder.name,
        seed=settings.seed,
    )


def _commit_model(context: Context, task: ShardTask, training: Training) -> None:
    """Train the heads, copy them into the open_clip model and commit it as config and checkpoint."""
    settings = tower_settings(context)
    train([training], context.recipe)
    objective = HeadsObjective(**training.arguments)
    heads = objective.model().eval()
    heads.load_state_dict(load_file(final_weights(training)))
    model, _, _ = frozen_model(settings)
    heads.put_into(model, objective.mean, objective.scale)
    facts = {
        **objective.evaluate(heads),
        "train_pictures": sum(objective.rows().counts),
        "packages": backbones.facts(),
    }
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
