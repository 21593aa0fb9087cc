"""Builds the decoder's network, its diffusion process and its painter from settings and committed weights."""

import math
from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.feeding.packed_rows import LatentRows
from corgi.feeding.packed_set import PackedSet
from corgi.feeding.rows import DecoderRows, embedded_shards, neighbours_among
from corgi.models.autoencoder import Autoencoder
from corgi.models.device import given_device
from corgi.models.neighbours import Neighbours
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.picture_decoder import Denoiser, PictureDecoder
from corgi.models.unet import UNetSizes
from corgi.names import UNetConfig
from corgi.settings.decoder import DecoderSettings, DenoiserSettings, UpsamplerSettings
from corgi.settings.errors import SettingsError
from corgi.tables.manifest import ShardManifest
from corgi.tables.schema import Split
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store
from corgi.training.autoencoder import check_same_autoencoder, load_autoencoder
from corgi.training.init_from import unet_config

WEAK = "weak"
"""File of a decoder's shard: the weights of autoguidance's weak network, if there is one."""


def network_of(
    settings: DenoiserSettings,
    latent_shape: tuple[int, ...],
    table: ShiftTable,
    pretrained: UNetConfig | None = None,
) -> nn.Module:
    """Build the untrained network that the settings name; `table` standardises its image embedding.

    `pretrained` is the config of a U-Net like Stable Diffusion's; it replaces the settings' sizes.
    """
    return NETWORKS[settings.network](sizes_of(settings, latent_shape, pretrained), table)


def sizes_of(
    settings: DenoiserSettings, latent_shape: tuple[int, ...], pretrained: UNetConfig | None = None
) -> NetworkSizes:
    """Return the sizes from which the network is built; an upsampler also reads a smaller picture, which has as many channels as its own."""
    decoder = settings if isinstance(settings, DecoderSettings) else None
    return NetworkSizes(
        latent_shape,
        settings.width,
        settings.depth,
        UNetSizes(**settings.unet.model_dump()),
        settings.dit.heads,
        settings.dit.patch,
        settings.noise_level_known,
        decoder.neighbours if decoder else 0,
        pretrained,
        (decoder.num_text_tokens, decoder.encoding_dim) if decoder else (0, 0),
        latent_shape[0] if isinstance(settings, UpsamplerSettings) else 0,
        decoder.regression if decoder else False,
    )


def check_network(
    settings: DenoiserSettings,
    latent_shape: tuple[int, ...],
    pretrained: UNetConfig | None = None,
    stage: str = "decoder",
) -> None:
    """Check that the network that the settings name fits the latents.

    Raises:
        SettingsError: it does not.

    """
    table = ShiftTable.ddpm(1)
    try:
        with torch.device("meta"):  # allocates no memory
            network_of(settings, latent_shape, table, pretrained)
    except ValueError as error:
        raise SettingsError(
            f"{stage}.network={settings.network} does not fit the latents: {error}; tables are safe; change its sizes or the latent space"
        ) from error


def process_of(settings: DenoiserSettings, latent_shape: tuple[int, ...]) -> ShiftedDiffusion:
    """Return ordinary diffusion on flat, standardised latents, which ends in pure noise unless the settings say otherwise."""
    schedule = Schedule.named(schedule_name(settings), settings.num_timesteps)
    return ShiftedDiffusion(ShiftTable.ddpm(math.prod(latent_shape)), schedule)


def schedule_name(settings: DenoiserSettings) -> str:
    """Return the schedule's name, with a suffix if it is rescaled to end in pure noise."""
    rescaled = settings.zero_terminal_snr and settings.schedule != "flow"  # flow always ends in pure noise
    return f"{settings.schedule}_zero_snr" if rescaled else settings.schedule


def painter_of(
    settings: DenoiserSettings,
    network: nn.Module,
    process: ShiftedDiffusion,
    autoencoder: Autoencoder,
    neighbours: Neighbours | None = None,
    weak: nn.Module | None = None,
) -> PictureDecoder:
    """Return the network as a painter that follows the settings; all parts must be on one device."""
    assert isinstance(network, Denoiser)
    assert weak is None or isinstance(weak, Denoiser)
    return PictureDecoder(
        network.eval(),
        process,
        autoencoder,
        settings.prediction,
        settings.sampler,
        settings.guidance_interval,
        neighbours,
        None if weak is None else weak.eval(),
    )


def load_decoder(store: Store, decoder: ShardManifest, model: ShardManifest) -> PictureDecoder:
    """Return a trained decoder ready to paint on the given device, from committed and verified weights.

    Raises:
        InputError: the decoder was trained on the latents of another autoencoder.

    """
    check_same_autoencoder(decoder, model)
    settings = DecoderSettings.recorded(decoder.settings["decoder"])
    autoencoder = load_autoencoder(store, model)
    shape, device = autoencoder.latent_shape, given_device()
    state, pretrained = weights_of(store, decoder)
    states = [state]
    if any(entry.table == WEAK for entry in decoder.files):
        states.append(load_file(store.path(decoder, WEAK)))
    networks: list[nn.Module] = []
    for state in states:
        networks.append(network_of(settings, shape, embedding_table(state), pretrained).to(device))
        networks[-1].load_state_dict(state)
    network, *weak = networks
    process = process_of(settings, shape).to(device)
    neighbours = None
    if settings.neighbours:  # read from the tables, from which taken-down pictures are gone
        rows = _rows_of(store, decoder)
        neighbours = neighbours_among(rows, settings.neighbours, settings.neighbour_max_cosine)
    return painter_of(settings, network, process, autoencoder.to(device), neighbours, *weak)


def weights_of(store: Store, decoder: ShardManifest) -> tuple[dict[str, Tensor], UNetConfig | None]:
    """Return the verified weights of a committed decoder, and the config of the pretrained U-Net it started from, if any."""
    return load_file(store.path(decoder, "decoder")), unet_config(store, decoder)


def embedding_table(state: Mapping[str, Tensor]) -> ShiftTable:
    """Return the table in a network's weights that standardises its image embedding."""
    prefix = "embedding_table."
    return ShiftTable.from_state(
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    )


def _rows_of(store: Store, decoder: ShardManifest) -> LatentRows | DecoderRows:
    """Return the train rows that a decoder was trained on; a decoder trained before the training table existed names other shards."""
    inputs = decoder.inputs
    if "pack" not in inputs:
        return DecoderRows(embedded_shards(store.location, inputs), inputs["autoencoder"][1:], Split.TRAIN)
    packed, latents = (
        [ListedShard.of(store.read_shard(path)) for path in paths]
        for paths in (inputs["pack"], inputs["autoencoder"][1:])
    )
    return LatentRows(PackedSet(store, packed), latents, Split.TRAIN)
