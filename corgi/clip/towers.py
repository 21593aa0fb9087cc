"""CLIP towers: any open_clip model, loaded and run through open_clip's own code, wherever its weights come from."""

import json
import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from huggingface_hub import constants as hub
from jaxtyping import Float, Int, UInt8
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.transforms import Normalize, ToTensor
from torchvision.transforms.functional import pil_to_tensor
from transformers.modeling_outputs import BaseModelOutput

from corgi.clip.backbones import PACKAGE_PREFIX, package_path
from corgi.clip.bounded_tokens import BoundedTokenizer
from corgi.clip.references import tower_refs
from corgi.models.device import given_device, images_at_once
from corgi.settings.clip import TowerRef
from corgi.settings.errors import InputError
from corgi.settings.section import digest

__all__ = ["Tower", "build_model", "load_tower", "tower_refs"]

UNTRAINED = "random"
Transform = Callable[[Image.Image], Tensor]
"""An evaluation transform: an RGB image in, [3, height, width] out."""
Tokenizer = Callable[[list[str]], Tensor]
"""Captions in, token ids [n, length] out."""
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LOAD_ERRORS = (
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    pickle.UnpicklingError,
    SafetensorError,
)


class Tower:
    """One CLIP model on one device: pictures and captions in, unit vectors and their original norms out."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        preprocess: Transform,
        tokenizer: Tokenizer,
        precision: str = "fp32",
    ) -> None:
        """Take a built open_clip model with its own evaluation transform and tokenizer."""
        self.name = name
        self.precision = precision
        self.model = model.eval().requires_grad_(False)
        self._crop, self._mean, self._std = split_transform(preprocess)
        self.crop = crop_name(preprocess)
        """Towers whose crop has the same name compute the same pixels from a picture."""
        self.tokenizer = tokenizer
        visual = model.get_submodule("visual")
        self._memory_format = torch.channels_last if _is_convolutional(visual) else torch.contiguous_format
        if self._memory_format is torch.channels_last:
            visual.to(memory_format=self._memory_format)
        self.device = next(model.parameters()).device
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        size = getattr(visual, "image_size", 224)
        self.image_size = int(size if isinstance(size, int) else max(size))
        self.dim = self.texts([""])[0].shape[1]

    def preprocess(
        self, picture: Image.Image
    ) -> UInt8[Tensor, "3 height width"] | Float[Tensor, "3 height width"]:
        """Resize and crop one RGB picture as open_clip does for this model; thread-safe.

        The pixels stay bytes, so a quarter of the data is copied to the device; `pixels` scales and normalises them there.
        """
        return self._crop(picture)

    def tokens(self, captions: Sequence[str]) -> Int[Tensor, "n length"]:
        """Return token ids; for a Hugging Face text model they are padded only to the longest caption."""
        ids = self.tokenizer(list(captions))
        text = getattr(self.model, "text", None)
        if isinstance(text, HFTextEncoder):
            used = (ids != _padding(text)).any(dim=0).nonzero()
            ids = ids[:, : int(used.max()) + 1]
        return ids

    def images(self, pictures: Sequence[Image.Image]) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n"]]:
        """Return the pictures' unit vectors, fp32, and their original norms."""
        size = images_at_once(self.device)
        parts = [
            self.pixels(torch.stack([self.preprocess(one) for one in pictures[first : first + size]]))
            for first in range(0, len(pictures), size)
        ]
        unit, norm = zip(*parts, strict=True)
        return torch.cat(unit), torch.cat(norm)

    @torch.no_grad()
    def pixels(
        self, pixels: UInt8[Tensor, "n 3 height width"] | Float[Tensor, "n 3 height width"]
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n"]]:
        """Return the unit vectors and norms of preprocessed pictures."""
        moved = pixels.to(self.device, non_blocking=True)
        with self._autocast():
            raw = self.model.encode_image(self.normalised(moved))  # pyright: ignore[reportCallIssue]
        return unit_and_norm(raw)

    def normalised(self, pixels: Tensor) -> Float[Tensor, "n 3 height width"]:
        """Scale and normalise bytes as open_clip's transform does, equal to the last bit; floats are returned unchanged."""
        if pixels.dtype == torch.uint8:
            mean, std = (values[:, None, None] for values in (self._mean, self._std))
            pixels = pixels.float().div_(255).sub_(mean).div_(std)
        return pixels.contiguous(memory_format=self._memory_format)

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n"]]:
        """Return the captions' unit vectors, fp32, and their original norms."""
        ids = self.tokens(captions).to(self.device)
        with self._autocast():
            raw = self.model.encode_text(ids)  # pyright: ignore[reportCallIssue]
        return unit_and_norm(raw)

    @torch.no_grad()
    def text_states(
        self, captions: Sequence[str]
    ) -> tuple[Float[Tensor, "n length width"], Int[Tensor, "n"]]:
        """Return the text model's last hidden states and how many tokens of each caption are not padding."""
        ids = self.tokens(captions)
        text: Any = getattr(self.model, "text", self.model)
        trunk: nn.Module = text.transformer if isinstance(text, HFTextEncoder) else text.ln_final
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor | BaseModelOutput) -> None:
            states = output if isinstance(output, Tensor) else output.last_hidden_state
            assert states is not None
            seen.append(states)

        hook = trunk.register_forward_hook(keep)
        try:
            with self._autocast():
                self.model.encode_text(ids.to(self.device))  # pyright: ignore[reportCallIssue]
        finally:
            hook.remove()
        return seen[-1].float().cpu(), self._lengths(ids)

    def _lengths(self, ids: Int[Tensor, "n length"]) -> Int[Tensor, "n"]:
        """Return how many tokens of each caption are not padding: up to the end-of-text token if the tokenizer has one."""
        text = getattr(self.model, "text", None)
        if isinstance(text, HFTextEncoder):
            return (ids != _padding(text)).sum(dim=1)
        end = getattr(self.tokenizer, "eot_token_id", None)
        if end is None:
            return torch.full((len(ids),), ids.shape[1])
        return (ids == end).int().argmax(dim=1) + 1

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def load_tower(ref: TowerRef, precision: str = "fp32") -> Tower:
    """Load a CLIP model on this process's GPU, or on the CPU if it has none.

    Architectures of open_clip, `hf-hub:` and `local-dir:` names and a user's config files, with a pretrained tag, a
    checkpoint file or `random` weights, are all loaded by open_clip.create_model_and_transforms.

    Raises:
        InputError: it cannot be loaded; the message names the model, the weights, the cache folder and a remedy.

    """
    model, preprocess, tokenizer = build_model(ref)
    return Tower(ref.name, model.to(given_device()), preprocess, tokenizer, precision)


def build_model(ref: TowerRef) -> tuple[nn.Module, Transform, Tokenizer]:
    """Return the open_clip model on the CPU, its evaluation transform and its tokenizer."""
    untrained = ref.pretrained == UNTRAINED
    try:
        name, overrides, offline = _architecture(ref)
        with _offline(offline), _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=None if untrained else ref.pretrained, pretrained_text=False, **overrides
            )
            tokenizer = open_clip.get_tokenizer(name)
            if isinstance(tokenizer, SimpleTokenizer):
                tokenizer = BoundedTokenizer(tokenizer)
    except _LOAD_ERRORS as error:
        raise InputError(_refusal(ref, error)) from error
    return model, cast("Transform", preprocess), cast("Tokenizer", tokenizer)


def _architecture(ref: TowerRef) -> tuple[str, dict[str, Any], bool]:
    """Return open_clip's name of the model, its preprocessing, and whether its config names packages, so that it loads offline.

    In a config file `package:` names are replaced by folders, in a temporary copy: a folder in the committed config
    would be right on one machine only. The file may also be open_clip's `open_clip_config.json`.
    """
    if ref.config is None:
        return ref.model, {}, False
    config = json.loads(Path(ref.config).read_text())
    wanted = config.get("preprocess_cfg", {})
    config = _resolved(config.get("model_cfg", config))
    name = f"{ref.model}-{digest(config)[:12]}"
    if name not in open_clip.list_models():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(config))
            open_clip.add_model_config(path)
            open_clip.factory._MODEL_CONFIG_PATHS.remove(path)
        if name not in open_clip.list_models():
            raise ValueError(
                f"{ref.config} is not an open_clip config: it needs embed_dim, vision_cfg and text_cfg"
            )
    keys = {
        "mean": "image_mean",
        "std": "image_std",
        "interpolation": "image_interpolation",
        "resize_mode": "image_resize_mode",
    }
    overrides = {keys[key]: value for key, value in wanted.items() if key in keys}
    return name, overrides, PACKAGE_PREFIX in json.dumps(json.loads(Path(ref.config).read_text()))


def _resolved(value: object) -> object:
    if isinstance(value, dict):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith(PACKAGE_PREFIX):
        return str(package_path(value))
    return value


def _refusal(ref: TowerRef, error: BaseException) -> str:
    cause = " ".join(str(error).split())[:300] or type(error).__name__
    return (
        f"tower {ref.name} (model {ref.model}, pretrained {ref.pretrained}) cannot be loaded: {cause}; nothing was embedded; "
        f"downloads are kept in {hub.HF_HUB_CACHE}; without a network connection set pretrained to a local .safetensors or .pt file"
    )


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keep the Hugging Face hub offline within the block if `wanted`, while packaged files are read."""
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's warnings about weights that are loaded later; failures still raise."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def split_transform(transform: Transform) -> tuple[Transform, Tensor, Tensor]:
    """Return the part of open_clip's evaluation transform before the conversion to floats, then its mean and std.

    A transform with other steps is returned whole, with mean 0 and std 1; it returns floats.
    """
    steps = _steps(transform)
    if not steps:
        return transform, torch.zeros(3), torch.ones(3)
    before = steps[:-2]

    def crop(picture: Image.Image) -> Tensor:
        for step in before:
            picture = step(picture)
        return pil_to_tensor(picture)

    return crop, torch.tensor(steps[-1].mean), torch.tensor(steps[-1].std)


def crop_name(transform: Transform) -> str:
    """Return a name for the part of a transform before the conversion to floats; equal parts have the same name within a process."""
    return repr(_steps(transform)[:-2] or id(transform))


def _steps(transform: Transform) -> list[Any]:
    """Return the steps of open_clip's evaluation transform; empty for a transform with other steps."""
    steps = list(getattr(transform, "transforms", ()))
    is_known = len(steps) > 2 and isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize)
    return steps if is_known else []


def _padding(text: HFTextEncoder) -> int:
    assert text.config is not None
    return int(getattr(text.config, "pad_token_id", None) or 0)


def _is_convolutional(visual: nn.Module) -> bool:
    """Return whether channels_last is faster. It is not faster for a transformer, whose only convolution embeds the patches."""
    return sum(isinstance(module, nn.Conv2d) for module in visual.modules()) > 1


def unit_and_norm(raw: Float[Tensor, "n dim"]) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n"]]:
    """Return raw vectors scaled to unit norm, fp32 on the CPU, and their original norms."""
    vectors = raw.float().cpu()
    norm = vectors.norm(dim=1)
    return vectors / norm.clamp(min=torch.finfo(torch.float32).tiny)[:, None], norm
