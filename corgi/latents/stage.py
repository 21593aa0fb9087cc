"""The autoencoder stage: builds the decoder's latent space from train pictures and writes every kept picture's latent."""

from pathlib import Path

from corgi.clip.references import model_shard, tower_refs
from corgi.feeding.pictures import PictureSet
from corgi.flow import screen
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.latents.encode import ENLARGED_FACT, EncodeShards
from corgi.latents.linear import commit_linear
from corgi.latents.objective import AutoencoderObjective, check_code_use
from corgi.latents.perceptual_tower import perceptual_tower
from corgi.latents.spatial import SpatialModel, Trained
from corgi.names import TRAINED_SPACES
from corgi.settings.models import AutoencoderSettings
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask
from corgi.training.data_checks import check_pictures, check_val
from corgi.training.trainer import final_facts, final_weights, train
from corgi.training.training import Training


def run(context: Context) -> list[ShardTask]:
    """Commit the shard `model` (autoencoder.safetensors), then one `latents` table per shard of pictures."""
    settings = context.recipe.autoencoder
    model = context.task("model")
    if context.pending([model]):
        make_model = commit_linear if settings.kind == "linear" else _commit_spatial
        make_model(context, model)
    fitted = context.store.shard(model.stage, model.key)
    assert fitted is not None
    selections = {entry.shard: entry for entry in context.entries("curate")}
    tasks = [
        context.task(
            images.shard,
            {"model": fitted.digest, "path": fitted.path},
            {"download": [images], "curate": [selections[images.shard]]},
        )
        for images in context.entries("download")
    ]
    arguments = {"root": context.store.location, "model": fitted.path, "settings": _json(settings)}
    if make_pending(context, EncodeShards, tasks, _pool(settings), "latents", arguments):
        _say_enlarged(context, tasks)
    return [model, *tasks]


def _commit_spatial(context: Context, model: ShardTask) -> None:
    """Train the codec if its kind is trained, then commit the shard `model`.

    Raises:
        InputError: no train picture is selected, there is no val picture to rank checkpoints by, the codebook collapsed, or a
            pretrained autoencoder cannot be used.

    """
    settings, stages = context.recipe.autoencoder, _stages(context)
    pictures = PictureSet.open(model.root, stages)
    check_pictures(sum(pictures.num_kept(Split.TRAIN)))
    trained = None
    if settings.kind in TRAINED_SPACES:
        check_val(sum(pictures.num_kept(Split.VAL)), settings.training)
        trained = _trained(context, model)
    arguments = {"stages": stages, "settings": _json(settings), "trained": trained}
    make_pending(context, SpatialModel, [model], _pool(settings), "autoencoder", arguments)


def _trained(context: Context, model: ShardTask) -> Trained:
    """Train the codec and return what `SpatialModel` needs from the training."""
    settings, training = context.recipe.autoencoder, _training(context, model)
    train([training], context.recipe)
    facts = final_facts(training)
    check_code_use(facts["val"], settings.quantiser)
    return Trained(str(final_weights(training)), str(training.metrics_file), facts)


def _training(context: Context, model: ShardTask) -> Training:
    settings = context.recipe.autoencoder
    return Training(
        name="autoencoder",
        folder=str(context.work_folder(model) / "autoencoder"),
        objective=AutoencoderObjective,
        arguments={
            "root": model.root,
            "stages": _stages(context),
            "settings": settings.model_dump(mode="json"),
            "tower": _tower(context),
        },
        settings=settings.training,
        tracking=context.recipe.tracking,
        group=context.run.folder.name,
        seed=settings.seed,
    )


def _stages(context: Context) -> dict[str, str]:
    """Return the paths of the manifests of the pictures and of the selections."""
    return {name: context.inputs[name].path for name in ("download", "curate")}


def _tower(context: Context) -> dict[str, object] | None:
    """Return the tower of the perceptual loss with the paths of its files; None if the loss needs no tower."""
    if perceptual_tower(context.recipe) is None:
        return None
    own = model_shard(context.listed("tower")) if "tower" in context.inputs else None
    refs = tower_refs(context.store, context.recipe.embed, own)
    name = context.recipe.autoencoder.conv.perceptual_tower
    return next(ref for ref in refs if name in (None, ref.name)).model_dump(mode="json")


def _say_enlarged(context: Context, tasks: list[ShardTask]) -> None:
    """Report how many pictures are smaller than those that the decoder will paint."""
    store = context.store
    paths = store.committed(context.stage.name, [task.key for task in tasks]).values()
    enlarged = total = 0
    for shard in store.each_of(paths, store.read_shard):
        enlarged, total = enlarged + shard.facts.get(ENLARGED_FACT, 0), total + shard.rows.kept
    if enlarged:
        side = context.recipe.autoencoder.image_size
        screen.current().say(
            f"autoencoder: {enlarged} of {total} pictures are stored smaller than image_size={side} and were enlarged"
        )


def _pool(settings: AutoencoderSettings) -> Pool:
    return Pool(settings.num_actors, settings.cpus_per_actor, settings.gpus_per_actor)


def _json(settings: AutoencoderSettings) -> dict[str, object]:
    """Return the section as JSON, with a local folder as an absolute path: a Ray worker has a different working folder."""
    values = settings.model_dump(mode="json")
    path = Path(settings.pretrained.path)
    if settings.pretrained.path and path.exists():
        values["pretrained"]["path"] = str(path.absolute())
    return values
