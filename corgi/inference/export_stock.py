"""Export of a run's decoder and autoencoder as diffusers' own KandinskyV22Pipeline: the folder contains no code, so none must be trusted."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# diffusers has functions without types

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from corgi.diffusion.scheduler import trained_betas
from corgi.diffusion.shifted import ShiftTable
from corgi.inference.export_prior import new_folder
from corgi.inference.generate import Generator
from corgi.inference.loading import assemble
from corgi.inference.run_models import models_digest, shards_of
from corgi.models.autoencoder import Autoencoder
from corgi.models.kandinsky_unet import KandinskyUNet
from corgi.models.spatial_autoencoder import SpatialAutoencoder
from corgi.settings.errors import InputError
from corgi.tables.run import Run

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

NULL = "null_image_embeds.safetensors"
PREDICTIONS: dict[str, Literal["v_prediction", "epsilon", "sample"]] = {
    "v": "v_prediction",
    "eps": "epsilon",
    "x0": "sample",
}


def export_stock(run_folder: str | Path, out: str | Path) -> Path:
    """Write a run's decoder and autoencoder as a KandinskyV22Pipeline and return the folder.

    Raises:
        InputError: the decoder or its latent space is not of a class of diffusers, or the folder is not empty.

    """
    run = Run.open(run_folder)
    shards = shards_of(run)
    generator = assemble(run.store, shards, run.name)
    network, model = _checked(generator)
    from diffusers.pipelines.kandinsky2_2.pipeline_kandinsky2_2 import KandinskyV22Pipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    folder = new_folder(out)
    decoder = generator.decoder
    scheduler: Any = DDIMScheduler(
        num_train_timesteps=decoder.process.schedule.num_steps,
        trained_betas=trained_betas(decoder.process.schedule),
        prediction_type=PREDICTIONS[decoder.prediction],
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    unet, null = stock_unet(network)
    movq = stock_movq(decoder.autoencoder, model)
    KandinskyV22Pipeline(unet=unet, scheduler=scheduler, movq=movq).save_pretrained(
        folder, safe_serialization=True
    )
    save_file({"negative_image_embeds": null[None].contiguous()}, folder / NULL)
    (folder / "README.md").write_text(_card(run, generator, models_digest(shards)))
    return folder


def _checked(generator: Generator) -> tuple[KandinskyUNet, nn.Module]:
    """Return the network and diffusers' VQModel.

    Raises:
        InputError: one of them is of a different class, or the pipeline cannot paint as the run does.

    """
    network, autoencoder = generator.decoder.network, generator.decoder.autoencoder
    model = getattr(getattr(autoencoder, "codec", None), "model", None)
    if not isinstance(network, KandinskyUNet):
        raise InputError(
            "the decoder is not of a class of diffusers; nothing was written; train one with decoder.network=unet and decoder.unet.kandinsky=true, or use --whole"
        )
    if type(model).__name__ != "VQModel" or getattr(autoencoder, "codec").quantises:  # noqa: B009 - the codec may be of any class
        raise InputError(
            "the latent space is not a VQModel of diffusers that decodes without quantising; nothing was written; train on one (autoencoder.kind=pretrained, autoencoder.pretrained.quantise=false), or use --whole"
        )
    if generator.upsamplers or generator.decoder.weak is not None:
        raise InputError(
            "KandinskyV22Pipeline supports no cascade and no autoguidance; nothing was written; use --whole"
        )
    if generator.decoder.prediction not in PREDICTIONS or generator.decoder.guidance_interval != (0, 1):
        raise InputError(
            "KandinskyV22Pipeline supports no flow prediction and no guidance interval; nothing was written; use --whole"
        )
    assert isinstance(model, nn.Module)
    return network, model


def stock_unet(network: KandinskyUNet) -> tuple["UNet2DConditionModel", Float[Tensor, "dim"]]:
    """Return diffusers' U-Net, which takes raw embeddings and returns 2 C channels, and the raw embedding that stands for no embedding.

    The table that standardises embeddings is folded into both linear layers that take them: W (a z + c) + b = (W a) z + (W c + b). The pipeline
    always splits the output into noise and variance, so the variance's channels are zeros.
    """
    scale, shift = affine_of(network.embedding_table)
    state = {name: value.clone() for name, value in network.unet.state_dict().items()}
    for layer in ("encoder_hid_proj.image_embeds", "add_embedding.image_proj"):
        weight = state[f"{layer}.weight"]
        state[f"{layer}.bias"] += weight @ shift
        state[f"{layer}.weight"] = weight * scale
    for name in ("conv_out.weight", "conv_out.bias"):
        state[name] = torch.cat([state[name], torch.zeros_like(state[name])])
    unet = type(network.unet).from_config(
        {**network.unet.config, "out_channels": 2 * network.latent_shape[0]}
    )
    unet.load_state_dict(state)
    return unet.eval(), (network.null_embedding.detach() - shift) / scale


def affine_of(table: ShiftTable) -> tuple[Float[Tensor, "dim"], Float[Tensor, "dim"]]:
    """Return a and c of a one-cluster diagonal table's whitening, a z + c."""
    rows, cluster = (
        torch.stack([torch.zeros(table.dim), torch.ones(table.dim)]),
        torch.zeros(2, dtype=torch.int64),
    )
    at_zero, at_one = table.to("cpu").whiten(rows.double(), cluster)
    return (at_one - at_zero).float(), at_zero.float()


def stock_movq(autoencoder: Autoencoder, model: nn.Module) -> "VQModel":
    """Return diffusers' VQModel, which decodes standardised latents without quantising: their mean and scale are folded into its first layer.

    W (s x + m) + b = (W s) x + (W m + b).
    """
    assert isinstance(autoencoder, SpatialAutoencoder)
    codec: Any = autoencoder.codec
    scale = autoencoder.scale.cpu() / codec.scaling_factor
    mean = autoencoder.mean.cpu() / codec.scaling_factor + codec.shift_factor
    kind: Any = type(model)
    state = {name: value.clone().cpu() for name, value in model.state_dict().items()}
    weight = state["post_quant_conv.weight"]
    state["post_quant_conv.bias"] += (weight[:, :, 0, 0] * mean).sum(1)
    state["post_quant_conv.weight"] = weight * scale[None, :, None, None]
    movq = kind.from_config(dict(model.config))  # pyright: ignore[reportArgumentType, reportCallIssue]
    movq.load_state_dict(state)
    return movq.eval()


def _card(run: Run, generator: Generator, models: str) -> str:
    """Return the folder's README."""
    settings, side = generator.decoder_settings, generator.decoder.autoencoder.image_size
    about = {"run": run.name, "models": models, "data": generator.origin.data}
    return f"""# Image embeddings to images of {side} x {side} px

    from diffusers import KandinskyV22Pipeline
    from safetensors.torch import load_file

    pipeline = KandinskyV22Pipeline.from_pretrained("PATH OF THIS FOLDER")
    null = load_file("PATH OF THIS FOLDER/{NULL}")["negative_image_embeds"]
    images = pipeline(image_embeds, null.repeat(len(image_embeds), 1), height={side}, width={side},
                      num_inference_steps={settings.sample_steps}, guidance_scale={settings.guidance}).images

The scheduler visits trailing timesteps (T, T - T/n, ...); the run's own sampler also visits the first one, so that its image from the same
noise differs a little at few steps. No code of this folder runs. `image_embeds` are unit image embeddings of the run's towers, side by side, divided by the square root of their number; the
towers and the prior are not in this folder (`--whole` writes the prior).

Made from: {json.dumps(about, sort_keys=True)}

The licence of the images that it learned from is that of the run's list: this folder does not know it.
"""
