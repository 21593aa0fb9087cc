"""Training that starts from trained weights: reading them, choosing which of them are trained, and merging lora for the commit."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# diffusers and peft have no types

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file
from torch import Tensor, nn

from corgi.models.pretrained_unet import PretrainedUNet
from corgi.names import UNetConfig
from corgi.settings.decoder import DecoderSettings, FineTuneSettings
from corgi.settings.errors import InputError, SettingsError
from corgi.tables.store import Store
from corgi.training.decoder_network import weights_of
from corgi.training.init_from import InitFolder

Place = Mapping[str, str]
"""Where a worker finds the weights, as `corgi.training.init_from.place_of` returns it; empty for none."""
_ADAPTED = ["to_q", "to_k", "to_v", "to_out.0"]
"""Linear layers of the attention to which lora adds a low-rank product."""
_ADAPTER = "default"
_UNET = "unet."
_OWN = ("condition.", "captions.", "embedding_table.")
"""Prefixes of the names of weights that a diffusers U-Net does not have."""
_LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)
_SAFE = "nothing was trained and all tables are safe"


def check_peft(settings: DecoderSettings) -> None:
    """Check that the package that lora needs is installed.

    Raises:
        SettingsError: it is not.

    """
    if settings.finetune.weights == "lora" and importlib.util.find_spec("peft") is None:
        raise SettingsError(
            "decoder.finetune.weights=lora needs the package peft; nothing was started; pip install 'corgi[finetune]' on every node, or train projection or all"
        )


def read_init(place: Place) -> tuple[dict[str, Tensor], UNetConfig | None]:
    """Return trained weights keyed by the names of a decoder's network, and the config of its diffusers U-Net, if any; no weights if `place` is empty.

    Raises:
        InputError: a tensor of the U-Net is missing, unknown or of another shape, or a file cannot be read.

    """
    if not place:
        return {}, None
    if "folder" in place:
        return _read_unet(place["folder"])
    store = Store(place["root"])
    return weights_of(store, store.read_shard(place["made"]))


def started_prior(network: nn.Module, place: Place, variant: str) -> nn.Module:
    """Load the verified weights of another run's prior, except (mu, Sigma), and return the network; unchanged if `place` is empty.

    Raises:
        InputError: that run has no prior of the variant, or its weights do not fit.

    """
    if not place:
        return network
    store = Store(place["root"])
    made = store.read_shard(place["made"])
    table = f"prior_{variant}"
    if not any(entry.table == table for entry in made.files):
        available = ", ".join(entry.table for entry in made.files if entry.table.startswith("prior_"))
        raise InputError(
            f"prior.init_from: {made.path} has no {table}, it has {available}; {_SAFE}; ask for the variants that were trained there"
        )
    load_start(network, load_file(store.path(made, table)), "prior.init_from", ("table.",))
    return network


def start(network: nn.Module, state: Mapping[str, Tensor], settings: DecoderSettings) -> None:
    """Load trained weights into a network and freeze those that the settings do not train; with an empty `state` it keeps its random weights.

    A diffusers U-Net has no layers for the image embedding: these stay random.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.

    """
    if state:
        is_whole = "condition.vector.weight" in state or not isinstance(network, PretrainedUNet)
        load_start(network, state, f"decoder.init_from={settings.init_from}", () if is_whole else _OWN)
    if settings.finetune.weights != "all":
        _freeze_the_rest(network, settings.finetune)


def load_start(
    network: nn.Module, state: Mapping[str, Tensor], setting: str, left: tuple[str, ...] = ()
) -> None:
    """Load trained weights into a network, except those whose names begin with one of `left`: these keep their values.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.

    """
    own, given = (
        {name: value for name, value in tensors.items() if not name.startswith(left)}
        for tensors in (network.state_dict(), state)
    )
    for words, names in (
        ("is missing", own.keys() - given.keys()),
        ("is unknown", given.keys() - own.keys()),
    ):
        if names:
            raise InputError(
                f"{setting}: {min(names)} {words}, and {len(names) - 1} more; {_SAFE}; ask for the network that was trained there"
            )
    other = [name for name, value in own.items() if value.shape != given[name].shape]
    if other:
        shapes = tuple(given[other[0]].shape), tuple(own[other[0]].shape)
        raise InputError(
            f"{setting}: {other[0]} has the shape {shapes[0]}, not {shapes[1]}, and {len(other) - 1} more differ; {_SAFE}; ask for the network, and the sizes of what it reads, with which it was trained"
        )
    network.load_state_dict(given, strict=False)


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with the products that lora learned added to the weights they adapt, W + B A, under the names without adapters."""
    weights: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        path = name.removesuffix(".base_layer.weight")
        if path != name:
            first, second = (state[f"{path}.lora_{part}.{_ADAPTER}.weight"] for part in ("A", "B"))
            value = value + second @ first
        weights[name.replace(".base_layer.", ".")] = value.contiguous()
    return weights


def _read_unet(folder: str) -> tuple[dict[str, Tensor], UNetConfig]:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config, kind = InitFolder(Path(folder)).config, cast("Any", UNet2DConditionModel)
    try:
        unet, info = kind.from_pretrained(
            folder, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except _LOAD_ERRORS as error:
        raise InputError(
            f"decoder.init_from={folder}: the weights cannot be read: {' '.join(str(error).split())[:300]}; {_SAFE}; name a folder of save_pretrained with safetensors"
        ) from error
    for what in ("missing", "unexpected"):
        names = info[f"{what}_keys"]
        if names:
            raise InputError(
                f"decoder.init_from={folder}: {len(names)} tensors are {what}, the first {names[0]}; {_SAFE}; name a whole U-Net"
            )
    return {f"{_UNET}{name}": value for name, value in unet.state_dict().items()}, config


def _freeze_the_rest(network: nn.Module, settings: FineTuneSettings) -> None:
    network.requires_grad_(False)
    if settings.weights == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=_ADAPTED)
        inject_adapter_in_model(config, network.get_submodule("unet"), adapter_name=_ADAPTER)
    for name, part in network.named_children():
        if name in ("condition", "captions"):
            part.requires_grad_(True)
