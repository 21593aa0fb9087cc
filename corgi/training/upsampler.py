"""The upsampler stages: each trains a model from a smaller picture and its image embedding to a larger picture, by diffusion on pixels."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftedDiffusion
from corgi.feeding.encoded_pictures import EncodedPictureRows
from corgi.feeding.noise import Noise
from corgi.feeding.packed_set import PackedSet
from corgi.flow import screen
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.tasks import Tasks, values_of
from corgi.models.device import given_device
from corgi.models.picture_decoder import to_bytes, unit_range
from corgi.models.spatial_autoencoder import pixel_space
from corgi.models.upsampler import Upsampler, cropped, enlarged, noised, shrunk
from corgi.settings.decoder import UpsamplerSettings
from corgi.settings.errors import InputError
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store
from corgi.tracking.tracked_run import Shown
from corgi.training.data_checks import check_pictures, check_val
from corgi.training.decoder_network import (
    check_network,
    embedding_table,
    network_of,
    painter_of,
    process_of,
)
from corgi.training.denoising import DenoisingObjective, condition_table
from corgi.training.pseudo_text import PseudoText
from corgi.training.trainer import final_weights, train
from corgi.training.training import Training

ROW, COLUMN, LOW_LEVEL, LOW_NOISE = range(16, 20)
"""Noise streams of a training sample, in addition to those of `corgi.training.denoising`, which are below 16."""
SHOWN_PICTURES = 4
MAX_VAL_PICTURES = 512
"""Maximum number of val pictures that an evaluation measures; fewer than the decoder's, since each has the larger side."""
SHARDS_PER_CALL = 64
"""Number of shards whose picture sizes one call reads."""
ENLARGED_FACT = "enlarged"
"""Fact of an upsampler: number of train pictures whose stored shorter side is less than the upsampler's side."""


def run(context: Context) -> list[ShardTask]:
    """Train one upsampler of the cascade and commit its averaged weights and metric lines.

    Raises:
        InputError: no train picture is selected or as large as what is painted, or there is no val picture to rank checkpoints by.
        SettingsError: the network does not fit the pictures.

    """
    task, name = context.task("all"), context.stage.name
    if not context.pending([task]):
        return [task]
    settings: UpsamplerSettings = context.recipe.upsamplers[name]
    for side in (settings.trained_side, settings.side):
        check_network(settings, (3, side, side), stage=name)
    packed = PackedSet.open(task.root, context.inputs["pack"].path)
    num_rows = packed.num_rows(Split.TRAIN)
    check_pictures(num_rows)
    check_val(packed.num_rows(Split.VAL), settings.training)
    connect(context.recipe)
    num_smaller = _num_smaller(context, settings.side)
    check_sizes(name, settings.side, num_smaller, num_rows)
    if num_smaller:
        screen.current().say(
            f"{name}: {num_smaller} of {num_rows} pictures are stored smaller than side={settings.side} and are enlarged"
        )
    training = _training(context, task, settings)
    train([training], context.recipe)
    parameters = sum(value.numel() for value in load_file(final_weights(training)).values())
    with context.store.attempt(task) as attempt:
        attempt.write_bytes(name, ".safetensors", final_weights(training).read_bytes())
        attempt.write_bytes("metrics", ".jsonl", training.metrics_file.read_bytes())
        facts = {"parameters": parameters, "train_pictures": num_rows, ENLARGED_FACT: num_smaller}
        attempt.commit(RowCounts(rows_in=num_rows, kept=num_rows), facts=facts)
    return [task]


def _num_smaller(context: Context, side: int) -> int:
    """Return how many train pictures are stored with a shorter side below `side`; workers read the sizes."""
    packed, images = context.listed("pack"), {shard.shard: shard for shard in context.listed("download")}
    calls, refs = Tasks(), []
    for first in range(0, len(packed), SHARDS_PER_CALL):
        part = packed[first : first + SHARDS_PER_CALL]
        stored = [images[shard.shard] for shard in part]
        refs.append(calls.start(num_smaller, context.store.location, part, stored, side))
    return sum(values_of(refs, "sizes"))


def num_smaller(root: str, packed: Sequence[ListedShard], images: Sequence[ListedShard], side: int) -> int:
    """Return how many train pictures of some shards are stored with a shorter side below `side`."""
    return EncodedPictureRows(PackedSet(Store(root), packed), images, Split.TRAIN, side).num_smaller()


def check_sizes(name: str, side: int, num_smaller: int, num_rows: int) -> None:
    """Check that some train pictures are as large as what is painted.

    Raises:
        InputError: all of them are smaller, so that the network would learn the blur of enlarged pictures.

    """
    if num_smaller == num_rows:
        raise InputError(
            f"{name}.side={side}, but all {num_rows} train pictures are stored smaller; tables are safe; raise download.image_size, or lower the side"
        )


def load_upsampler(store: Store, made: ShardManifest) -> Upsampler:
    """Return a trained upsampler on this process's device, from committed and verified weights."""
    settings = UpsamplerSettings.recorded(made.settings[made.stage])
    shape, device = (3, settings.side, settings.side), given_device()
    state = load_file(store.path(made, made.stage))
    network = network_of(settings, shape, embedding_table(state))
    network.load_state_dict(state)
    return upsampler_of(settings, network.to(device), process_of(settings, shape).to(device))


def upsampler_of(settings: UpsamplerSettings, network: nn.Module, process: ShiftedDiffusion) -> Upsampler:
    """Return a painter of pictures of the larger side that follows the settings; network and process must be on one device."""
    space = pixel_space(settings.side).to(process.table.mean.device)
    painter = painter_of(settings, network, process, space)
    level = settings.painted_low_noise**2
    return Upsampler(painter, settings.low_side, level, settings.sample_steps, settings.guidance)


class UpsamplerObjective(DenoisingObjective[UpsamplerSettings]):
    """The diffusion loss on square crops of larger pictures, given the same crops of the smaller ones and the embedding."""

    def __init__(self, root: str, stages: Mapping[str, str], settings: Mapping[str, object]) -> None:
        """Open the stages `download`, `pack` and `shift` by their manifests' paths; arguments are JSON."""
        parsed = UpsamplerSettings.model_validate(settings)
        store = Store(root)
        self.packed = PackedSet.open(root, stages["pack"])
        self.images = store.listed(store.read_stage(stages["download"]))
        self.space = pixel_space(parsed.trained_side)
        self.painted = process_of(parsed, (3, parsed.side, parsed.side))
        pseudo_text = PseudoText(parsed.pseudo_text_xi)
        table = condition_table(store, stages["shift"], pseudo_text)
        super().__init__(parsed, pseudo_text, table, process_of(parsed, self.space.latent_shape))

    def place(self, device: torch.device) -> None:
        """Move the embeddings' mean and scale, both processes and the pixel space to a device."""
        super().place(device)
        self.space, self.painted = self.space.to(device), self.painted.to(device)

    def model(self) -> nn.Module:
        """Build the untrained network, for the crops of training."""
        return network_of(self.settings, self.space.latent_shape, self.table)

    def rows(self, split: Split = Split.TRAIN) -> EncodedPictureRows:
        """Return the kept pictures of a split."""
        return EncodedPictureRows(self.packed, self.images, split, self.settings.side)

    def sample(
        self, batch: dict[str, Tensor], noise: Noise, augment: bool
    ) -> tuple[Float[Tensor, "batch latent"], dict[str, Tensor]]:
        """Return a square crop of each larger picture, and the same crop of the smaller one, enlarged and with noise."""
        large, settings = unit_range(batch["picture"]), self.settings
        small = enlarged(shrunk(large, settings.low_side), settings.side)
        last = settings.side - settings.trained_side
        corner = torch.stack([noise.integers(0, last + 1, draw) for draw in (ROW, COLUMN)], dim=1)
        latent, low = (
            self.space.encode(cropped(picture, corner, settings.trained_side)) for picture in (large, small)
        )
        share = settings.low_noise**2 * noise.uniform(LOW_LEVEL)
        low = noised(low, noise.normal((low.shape[1],), LOW_NOISE), share)
        return latent, {"low": low, "low_level": share}

    def max_val(self) -> int:
        """Return how many val pictures an evaluation measures at most."""
        return MAX_VAL_PICTURES

    def show(self, model: nn.Module) -> Shown:
        """Return a grid: val pictures at the smaller side, the pictures painted from them, and the true larger pictures."""
        batch = self.first_val(SHOWN_PICTURES)
        if not batch:
            return Shown()
        shape = (3, self.settings.side, self.settings.side)
        whole = network_of(self.settings, shape, self.table).to(batch["image"].device)
        whole.load_state_dict(model.state_dict())
        upsampler = upsampler_of(self.settings, whole, self.painted)
        large = batch["picture"].permute(0, 2, 3, 1)
        small = shrunk(unit_range(batch["picture"]), self.settings.low_side)
        painted = upsampler.sample(to_bytes(small), batch["image"], range(len(large)))
        rows = (to_bytes(enlarged(small, self.settings.side)), painted, large)
        grid = torch.cat([torch.cat(list(row), dim=1) for row in rows], dim=0)
        return Shown(pictures={"samples": grid.cpu().numpy()})


def _training(context: Context, task: ShardTask, settings: UpsamplerSettings) -> Training:
    name = context.stage.name
    return Training(
        name=name,
        folder=str(context.work_folder(task) / name),
        objective=UpsamplerObjective,
        arguments={
            "root": task.root,
            "stages": {stage: manifest.path for stage, manifest in context.inputs.items()},
            "settings": settings.model_dump(mode="json"),
        },
        settings=settings.training,
        tracking=context.recipe.tracking,
        group=context.run.folder.name,
        seed=settings.seed,
    )
