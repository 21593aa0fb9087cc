"""A first recipe for the user's own data: ten lines of settings that differ from the defaults, made from four answers."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import yaml

from corgi.settings.errors import SettingsError

TowerName = Literal["own", "public"]
TOWERS: tuple[TowerName, ...] = ("own", "public")
NO_CAPTIONS = "none"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Answers:
    """The answers from which a first recipe is made."""

    name: str
    sources: tuple[str, ...]
    """Values of plan.input: lists, tars, folders, globs, URIs."""
    captions: str = "caption"
    """Column of a list that holds the captions; those of folders and tars are in files; NO_CAPTIONS: there are none."""
    tower: TowerName = "own"
    """own: a tower is trained on the data, with packaged backbones. public: open_clip's ViT-B-32, which is downloaded."""
    gpu: bool = False


def recipe_text(answers: Answers) -> str:
    """Return the recipe's YAML.

    Raises:
        SettingsError: the answers contradict each other, or one is not allowed.

    """
    check(answers)
    return "\n".join(_lines(answers)) + "\n"


def check(answers: Answers) -> None:
    """Check the answers.

    Raises:
        SettingsError: they contradict each other, or one is not allowed.

    """
    if not NAME.fullmatch(answers.name) or answers.name == "store":
        raise SettingsError(
            f"{answers.name!r} cannot name a run; nothing was written; use letters, digits, dots and dashes, and not the name store"
        )
    if not any(answers.sources):
        raise SettingsError(
            "a recipe needs a source; nothing was written; name a list, a folder of images or tars with --source"
        )
    if answers.captions == NO_CAPTIONS and answers.tower == "own":
        raise SettingsError(
            "a tower of your own is trained on captions and there are none; nothing was written; use --tower public"
        )


def commands(answers: Answers, path: str) -> list[str]:
    """Return the commands to run next, in order; without captions the prior is left out."""
    if answers.captions == NO_CAPTIONS:
        shared = f"corgi run {path}"
        return [
            f"corgi plan {path} --until shift",
            f"{shared} --until shift",
            f"{shared} --only autoencoder",
            f"{shared} --only decoder",
        ]
    return [f"corgi plan {path}", f"corgi run {path}", f"corgi serve runs/{answers.name}"]


def _lines(answers: Answers) -> Iterator[str]:
    yield f"# Written by `corgi new {answers.name}`. docs/settings.md lists every setting; settings that are not here have their defaults."
    yield f"name: {answers.name}"
    yield _plan(answers)
    yield from _GPU if answers.gpu else _CPU
    yield _tower(answers)


def _plan(answers: Answers) -> str:
    column = None if answers.captions == NO_CAPTIONS else answers.captions
    values: dict[str, object] = {"input": list(answers.sources)}
    if column != "caption":
        values["caption_col"] = column
    values["number_sample_per_shard"] = 10_000 if answers.gpu else 512
    return f"plan: {_flow(values)}"


def _tower(answers: Answers) -> str:
    if answers.tower == "public":
        towers = [{"name": "b32", "model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}]
        return f"embed: {_flow({'towers': towers, 'gpus_per_actor': int(answers.gpu)})}"
    precision = "bf16" if answers.gpu else "fp32"
    training = {"num_steps": 500, "global_batch": 128, "precision": precision, "use_gpu": answers.gpu}
    return f"tower: {_flow({'image_size': 128, 'training': training})}"


def _flow(value: object) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True
    ).strip()


_CPU = (
    "download: {image_size: 128}",
    "shift: {num_clusters: 16}",
    "prior: {width: 128, depth: 4, heads: 4, training: {num_steps: 1000, global_batch: 64, lr: 1.0e-3, ema_decay: 0.99, warmup_steps: 50, precision: fp32}}",
    "autoencoder: {kind: kl, image_size: 64, training: {num_steps: 600, precision: fp32}}",
    "decoder: {network: unet, unet: {widths: [64, 128], attention: []}, conditioning_noise: 0.15, guidance: 3, training: {num_steps: 1100, global_batch: 64, lr: 1.0e-3, ema_decay: 0.999, warmup_steps: 50, precision: fp32, zero_stage: 0}}",
    "evaluate: {steps: [2, 8]}",
)
"""Sizes of the demo (pipelines/recipes/openmoji.yaml): about half an hour on two CPU cores, without the fetch."""
_GPU = (
    "download: {image_size: 256}",
    "shift: {num_clusters: 1024}",
    "prior: {width: 1024, depth: 12, heads: 16, training: {num_steps: 200000, global_batch: 4096, num_workers: 8, use_gpu: true, checkpoint_every_steps: 1000}}",
    "autoencoder: {kind: kl, image_size: 64, training: {num_steps: 20000, global_batch: 64, use_gpu: true}}",
    "decoder: {network: unet, unet: {widths: [96, 192, 384], attention: [1, 2]}, conditioning_noise: 0.15, training: {num_steps: 200000, global_batch: 2048, num_workers: 8, use_gpu: true, checkpoint_every_steps: 1000}}",
    "evaluate: {gpus: 1}",
)
"""The prior of pipelines/recipes/laion-b32.yaml with a smaller autoencoder and a convolutional decoder; not measured."""
