"""Export of a run's prior, decoder, autoencoder and cascade to one diffusers folder that paints without corgi."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from corgi.clip.references import tower_refs
from corgi.inference.autoencoder_model import AutoencoderModel
from corgi.inference.decoder_model import DecoderModel
from corgi.inference.export_prior import MODEL, bundle, diffusers_version, model_of, new_folder
from corgi.inference.generate import Generator
from corgi.inference.loading import assemble
from corgi.inference.run_models import cascade_of, models_digest, shards_of
from corgi.models.picture_decoder import PictureDecoder
from corgi.models.pretrained_unet import PretrainedUNet
from corgi.models.text_prior import TextPrior
from corgi.settings.clip import EmbedSettings
from corgi.settings.decoder import DenoiserSettings, UpsamplerSettings
from corgi.settings.errors import InputError
from corgi.settings.models import AutoencoderSettings, PriorSettings
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run
from corgi.training.decoder_network import WEAK, schedule_name, sizes_of

PIPELINE, DECODER, AUTOENCODER = "corgi_pipeline", "corgi_decoder", "corgi_autoencoder"
"""Names of the modules in the folder, in addition to that of the prior."""
SHIPPED = {
    "": (PIPELINE, "corgi.inference.whole_pipeline"),
    "prior": (MODEL, "corgi.inference.prior_model"),
    "decoder": (DECODER, "corgi.inference.decoder_model"),
    "autoencoder": (AUTOENCODER, "corgi.inference.autoencoder_model"),
}
"""Folder of a component -> (the module's name in it, the module of corgi that it is made from)."""


def export_whole(run_folder: str | Path, out: str | Path) -> Path:
    """Write a run as one diffusers folder and return it.

    Raises:
        InputError: the run has no models, its decoder uses train pictures or token states, it is language-free, or the folder is not empty.

    """
    run = Run.open(run_folder)
    shards = shards_of(run)
    generator = assemble(run.store, shards, run.name)
    if generator.decoder.neighbours is not None:
        raise InputError(
            "the decoder uses train pictures (decoder.neighbours), which the folder would have to contain; nothing was written; export another run"
        )
    if generator.decoder_words is not None:
        raise InputError(
            "the decoder reads token states of captions (decoder.num_text_tokens), whose encoder the folder would have to contain; nothing was written; export another run"
        )
    if not isinstance(generator.prior, TextPrior):
        raise InputError(
            "the decoder was trained on pseudo text and has no prior; nothing was written; export another run"
        )
    folder = new_folder(out)
    facts = _facts(run, shards, generator)
    model_of(generator.prior, facts).save_pretrained(folder / "prior", safe_serialization=True)
    cascade = {
        shard.stage: UpsamplerSettings.recorded(shard.settings[shard.stage]) for shard in cascade_of(shards)
    }
    denoisers = _denoisers(generator, cascade, facts)
    for name, denoiser in denoisers.items():
        denoiser.save_pretrained(folder / name, safe_serialization=True)
    _autoencoder(run, shards["autoencoder"][0], generator).save_pretrained(
        folder / "autoencoder", safe_serialization=True
    )
    shipped = {**SHIPPED, **dict.fromkeys(denoisers, SHIPPED["decoder"])}
    for name, (module, source) in shipped.items():
        (folder / name / f"{module}.py").write_text(bundle(source))
    prior = PriorSettings.recorded(shards["prior"][0].settings["prior"])
    index = {
        "_class_name": [PIPELINE, "TextToImagePipeline"],
        "_diffusers_version": diffusers_version(),
        "prior": [MODEL, "PriorModel"],
        **{name: [DECODER, "DecoderModel"] for name in denoisers},
        "autoencoder": [AUTOENCODER, "AutoencoderModel"],
        "manner": _manner(generator, prior, cascade),
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "README.md").write_text(_card(generator, facts, run))
    return folder


def _facts(run: Run, shards: Mapping[str, list[ShardManifest]], generator: Generator) -> dict[str, object]:
    """Return what the models were made from, as JSON."""
    embed = shards["embed"][0]
    refs = (
        tower_refs(run.store, EmbedSettings.recorded(embed.settings["embed"]), None)
        if "tower" not in shards
        else ()
    )
    return {
        "run": run.name,
        "models": models_digest(shards),
        "data": generator.origin.data,
        "towers": [f"{ref.model}, {ref.pretrained}" for ref in refs] or ["own, trained by the run"],
        "rows": {name: manifest.rows.kept for name, manifest in run.stages().items()},
    }


def _manner(
    generator: Generator, prior: PriorSettings, cascade: Mapping[str, UpsamplerSettings]
) -> dict[str, object]:
    """Return how the pipeline paints: the run's generator settings, and the schedules."""
    manner = {name: value for name, value in generator.manner.items() if name != "best_of"}
    settings, steps = generator.decoder_settings, zip(generator.upsamplers, cascade.values(), strict=True)
    if cascade:
        manner["upsamplers"] = [
            {**step.manner, **_of_network(asked), "low_side": step.low_side} for step, asked in steps
        ]
    return {
        **manner,
        **_of_network(settings),
        "prior_schedule": [prior.schedule, prior.num_timesteps],
    }


def _of_network(settings: DenoiserSettings) -> dict[str, object]:
    return {
        "prediction": settings.prediction,
        "schedule": [schedule_name(settings), settings.num_timesteps],
    }


def _denoisers(
    generator: Generator, cascade: Mapping[str, UpsamplerSettings], facts: Mapping[str, object]
) -> dict[str, DecoderModel]:
    """Return the decoder's network, the weak network that guides it if any, and those of the cascade, by the names of their folders."""
    painter, settings = generator.decoder, generator.decoder_settings
    denoisers = {"decoder": _denoiser(painter, settings, facts)}
    if painter.weak is not None:
        denoisers[WEAK] = _denoiser(replace(painter, network=painter.weak), settings, facts)
    for step, (name, asked) in zip(generator.upsamplers, cascade.items(), strict=True):
        denoisers[name] = _denoiser(step.painter, asked, facts)
    return denoisers


def _denoiser(
    painter: PictureDecoder, settings: DenoiserSettings, facts: Mapping[str, object]
) -> DecoderModel:
    network: Any = painter.network
    pretrained = network.config if isinstance(network, PretrainedUNet) else None
    sizes = sizes_of(settings, painter.autoencoder.latent_shape, pretrained)
    state = network.state_dict()
    dim = state["embedding_table.mean"].shape[1]
    model = DecoderModel(settings.network, json.loads(json.dumps(asdict(sizes))), dim, dict(facts))
    model.network.load_state_dict(state)
    return model.eval()


def _autoencoder(run: Run, model: ShardManifest, generator: Generator) -> AutoencoderModel:
    kind = AutoencoderSettings.recorded(model.settings["autoencoder"]).kind
    state = generator.decoder.autoencoder.state_dict()
    has_config = any(entry.table == "config" for entry in model.files)
    space = json.loads(run.store.path(model, "config").read_bytes()) if has_config else {}
    component = AutoencoderModel(kind, space, {name: list(value.shape) for name, value in state.items()})
    component.autoencoder.load_state_dict(state)
    return component.eval()


def _card(generator: Generator, facts: Mapping[str, object], run: Run) -> str:
    """Return the folder's README: how to paint with it, what it was made from, and its limits."""
    side = generator.side
    measured = run.published("metrics.json")
    metrics = "not evaluated" if measured is None else run.storage.read("metrics.json").decode()
    return f"""# Text to image by shifted diffusion

CLIP text embedding in, image of {side} x {side} px out.

    import torch
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained("PATH OF THIS FOLDER", trust_remote_code=True)
    images = pipeline(text_embeds, seeds=[0]).images

`trust_remote_code` runs the Python files of this folder: read them first. They need torch, numpy, Pillow and diffusers, not corgi.
`text_embeds` are unit text embeddings of the towers {json.dumps(facts["towers"])}, side by side, divided by the square root of their number. The towers are
not in this folder.

Made from: {json.dumps(dict(facts), sort_keys=True)}

The licence of the images that it learned from is that of the run's list: this folder does not know it.

Limits: it paints what its images show, at their side; colours and rough shapes are right more often than things are. Nothing was done
against copies of training images.

Metrics:

```json
{metrics}
```
"""
