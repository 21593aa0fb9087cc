"""A finished run that paints: an untrained tower, and a prior and decoder of drawn weights, committed by hand."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.autoencoder import LinearAutoencoder
from corgi.models.pretrained_codec import untrained
from corgi.models.spatial_autoencoder import Codec, PixelCodec, SpatialAutoencoder
from corgi.names import UPSAMPLERS, LatentSpaceName
from corgi.settings.clip import EmbedSettings, ShiftSettings, TokenRef
from corgi.settings.decoder import DecoderSettings, UNetSettings, UpsamplerSettings
from corgi.settings.models import AutoencoderSettings, PretrainedSettings, PriorSettings
from corgi.shift.file import safetensors_bytes
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.training import prior
from corgi.training.autoencoder import AUTOENCODER_FACT
from corgi.training.decoder_network import WEAK, network_of
from tests.support.tables import Output, commit_stage, new_run
from tests.support.tiny_towers import tiny_tower

DIM, SIDE, LATENT, CLUSTERS = 16, 16, 12, 3
DATA = "da7a" * 8


def painting_run(
    root: Path,
    name: str = "tiny",
    seed: int = 0,
    decoder: dict[str, Any] | None = None,
    vq: Any = None,
    num_upsamplers: int = 0,
    **shift_facts: str,
) -> Run:
    """Return a run with every stage that painting reads; `seed` draws its weights, `decoder` changes its settings.

    A decoder network that reads a plane gets the latent space `pixels`, or diffusers' VQModel of the config `vq`, any other
    principal components.
    A decoder network that reads a plane gets the latent space `pixels`, any other principal components. Each step of the
    cascade doubles the side.
    """
    root.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    run = new_run(root, name)
    tower = tiny_tower(root, "transformer")
    words = TokenRef(name="words", model=f"tower:{tower.name}")
    embed = EmbedSettings(towers=(tower,), tokens=(words,))
    _commit(run, "embed", {"embed": embed.model_dump(mode="json")})
    mean = F.normalize(torch.randn(CLUSTERS, DIM), dim=-1)
    shift = {
        "mean": mean,
        "scale": torch.full((CLUSTERS, DIM), 0.2),
        "count": torch.full((CLUSTERS,), 7),
        "global_mean": mean.mean(0),
        "global_scale": torch.full((DIM,), 0.25),
    }
    told = {"data": DATA, **shift_facts}
    data = safetensors_bytes({key: value.numpy() for key, value in shift.items()}, told)
    settings = {"shift": ShiftSettings(num_clusters=CLUSTERS).model_dump(mode="json")}
    _commit(run, "shift", settings, {"shift": (".safetensors", data)})
    _commit_prior(run, ShiftTable.clusters(mean, shift["scale"]))
    settings = DecoderSettings(
        **{"width": 32, "depth": 1, "sample_steps": 4, "num_timesteps": 100, **(decoder or {})}
    )
    if vq is not None:
        shape = _commit_spatial(run, "pretrained", untrained(vq), vq)
    elif settings.network != "mlp":
        shape = _commit_spatial(run, "pixels", PixelCodec(), {})
    else:
        shape = _commit_components(run)
    _commit_decoder(run, settings, shape)
    cascade = UPSAMPLERS[:num_upsamplers]
    for number, stage in enumerate(cascade):
        _commit_upsampler(run, stage, SIDE * 2**number)
    run.note(order=[*run.stages()])
    return run


def _commit_prior(run: Run, table: ShiftTable) -> None:
    settings = PriorSettings(width=32, depth=1, heads=2, sample_steps=3, num_timesteps=100)
    network = filled(prior.network_of(settings, table, "shifted"))
    files = {"prior_shifted": (".safetensors", save(network.state_dict()))}
    _commit(run, "prior", {"prior": settings.model_dump(mode="json")}, files)


def _commit_components(run: Run) -> tuple[int, ...]:
    settings = AutoencoderSettings(image_size=SIDE, latent_dim=LATENT)
    pixels = 3 * SIDE * SIDE
    components = torch.linalg.qr(torch.randn(pixels, LATENT)).Q.mT.contiguous()
    made = LinearAutoencoder(torch.full((pixels,), 0.5), components, torch.full((LATENT,), 2.0))
    files = {"autoencoder": (".safetensors", save(made.state_dict()))}
    _commit(run, "autoencoder", {"autoencoder": settings.model_dump(mode="json")}, files)
    return made.latent_shape


def _commit_spatial(
    run: Run, kind: LatentSpaceName, codec: Codec, codec_config: dict[str, Any]
) -> tuple[int, ...]:
    settings = AutoencoderSettings(kind=kind, image_size=SIDE, pretrained=PretrainedSettings(path="none"))
    made = SpatialAutoencoder(codec, SIDE)
    made.mean.fill_(0.5)
    made.scale.fill_(0.3)
    config = json.dumps({"codec": codec_config, "image_size": SIDE}).encode()
    files = {"autoencoder": (".safetensors", save(made.state_dict())), "config": (".json", config)}
    _commit(run, "autoencoder", {"autoencoder": settings.model_dump(mode="json")}, files)
    return made.latent_shape


def _commit_decoder(run: Run, settings: DecoderSettings, latent_shape: tuple[int, ...]) -> None:
    network = filled(network_of(settings, latent_shape, _embedding_table()))
    files = {"decoder": (".safetensors", save(network.state_dict()))}
    if settings.weak is not None:
        weak = filled(network_of(settings, latent_shape, _embedding_table()))
        files[WEAK] = (".safetensors", save(weak.state_dict()))
    facts = {AUTOENCODER_FACT: run.shards("autoencoder")[0].digest}
    _commit(run, "decoder", {"decoder": settings.model_dump(mode="json")}, files, facts)


def _commit_upsampler(run: Run, stage: str, low_side: int) -> None:
    unet = UNetSettings(widths=(8, 16), heads=2, attention=(), middle_attention=False)
    settings = UpsamplerSettings(
        unet=unet,
        sample_steps=3,
        num_timesteps=100,
        guidance=2.0,
        low_side=low_side,
        side=2 * low_side,
        crop=low_side,
    )
    network = filled(network_of(settings, (3, 2 * low_side, 2 * low_side), _embedding_table()))
    files = {stage: (".safetensors", save(network.state_dict()))}
    _commit(run, stage, {stage: settings.model_dump(mode="json")}, files)


def _embedding_table() -> ShiftTable:
    return ShiftTable.standardised(torch.zeros(DIM), torch.full((DIM,), 0.03))  # captions then matter


def filled(network: nn.Module) -> nn.Module:
    """Return a network whose last layers, which start at zero, answer something."""
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network


def _commit(
    run: Run,
    stage: str,
    settings: dict[str, Any],
    files: dict[str, tuple[str, bytes]] | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    output = Output(RowCounts(rows_in=0, kept=0), files=files or {}, facts=facts or {}, settings=settings)
    commit_stage(run, stage, {"all": output})
