"""Loading of a run's committed models for painting; each file is verified against its manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open

from corgi.clip.references import model_shard, tower_refs
from corgi.clip.tokens import token_encoder
from corgi.clip.towers import Tower, load_tower
from corgi.clip.vectors import NORMALISATION
from corgi.inference.embedders import with_embedder
from corgi.inference.generate import Generator, Origin
from corgi.inference.run_models import Shards, cascade_of, models_digest, shards_of
from corgi.inference.words import Words
from corgi.models.embedder import Sampling
from corgi.models.language_free import RawText
from corgi.names import EmbedderName
from corgi.settings.clip import EmbedSettings
from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import InputError, StorageError
from corgi.settings.models import PriorSettings
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run
from corgi.tables.store import Store
from corgi.training.decoder_network import load_decoder
from corgi.training.prior import load_prior
from corgi.training.upsampler import load_upsampler
from corgi.training.words import Reader, words_of


def load(folder: str | Path, embedder: EmbedderName = "prior") -> Generator:
    """Load the run in a folder, such as runs/openmoji.

    Args:
        folder: path or URL of the run.
        embedder: what turns captions into image embeddings; all except prior are baselines.

    Raises:
        InputError: the run does not exist, has not finished its prior or decoder, or has models that do not belong together.
        StorageError: a committed file does not match its manifest.

    """
    run = Run.open(folder)
    return with_embedder(assemble(run.store, shards_of(run), run.name), run, embedder)


def assemble(store: Store, shards: Shards, run: str = "") -> Generator:
    """Return the generator from committed shards, given by stage; a decoder trained on pseudo text takes captions' text embeddings directly.

    Raises:
        InputError: the models do not belong together.

    """
    prior, decoder, autoencoder = shards["prior"][0], shards["decoder"][0], shards["autoencoder"][0]
    _check_towers(store, shards["embed"][0], {"prior": prior, "decoder": decoder})
    embed = EmbedSettings.recorded(shards["embed"][0].settings["embed"])
    own = model_shard(shards["tower"]) if "tower" in shards else None
    settings = PriorSettings.recorded(prior.settings["prior"])
    towers = tuple(load_tower(ref) for ref in tower_refs(store, embed, own))
    decoder_settings = DecoderSettings.recorded(decoder.settings["decoder"])
    words, decoder_words = (
        _words(shards["embed"][0], embed, towers, reader) for reader in (settings, decoder_settings)
    )
    is_language_free = decoder_settings.is_language_free
    own_prior = load_prior(store, prior, shards["shift"][0], settings.variants[0])
    return Generator(
        towers=towers,
        words=words,
        decoder_words=decoder_words,
        prior=RawText() if is_language_free else own_prior,
        embedder="text" if is_language_free else "prior",
        prior_sampling=Sampling(
            settings.sample_steps, settings.sampler, settings.guidance, settings.num_candidates
        ),
        decoder=load_decoder(store, decoder, autoencoder),
        decoder_settings=decoder_settings,
        upsamplers=tuple(load_upsampler(store, shard) for shard in cascade_of(shards)),
        models=models_digest(shards),
        origin=Origin(run, _data_of(store, shards["shift"][0])),
    )


def _words(
    embedded: ShardManifest, embed: EmbedSettings, towers: Sequence[Tower], reader: Reader
) -> Words | None:
    """Return the encoder of the token states that a network reads; None for a network that reads none."""
    encoder = words_of(embedded, reader)
    ref = next((ref for ref in embed.tokens if ref.name == encoder), None)
    return None if ref is None else Words(token_encoder(ref, towers), ref, reader.num_text_tokens)


def _data_of(store: Store, shift: ShardManifest) -> str:
    """Return the digest of the tables on which the models were trained, as recorded with the shift parameters.

    Raises:
        InputError: the shift parameters are those of embeddings with a different normalisation.

    """
    with safe_open(store.path(shift, "shift"), "numpy") as file:
        metadata = file.metadata() or {}
    if metadata.get("normalisation", NORMALISATION) != NORMALISATION:
        raise InputError(
            f"the models were trained on embeddings with {metadata['normalisation']!r}, but these towers give {NORMALISATION!r}; "
            "tables and models are safe; run pipelines/full.py again"
        )
    return metadata.get("data", "")


def _check_towers(store: Store, embed: ShardManifest, models: Mapping[str, ShardManifest]) -> None:
    """Compare the towers on whose embeddings each model was trained with those that would embed a caption now.

    Raises:
        InputError: they differ.

    """
    towers = _towers_of(embed)
    for name, model in models.items():
        trained_on = _learned_from(store, model)
        if trained_on not in (None, towers):
            raise InputError(
                f"the {name} was trained on embeddings of {trained_on}, but captions would be embedded by {towers}; "
                "tables and models are safe; run pipelines/full.py again"
            )


def _learned_from(store: Store, model: ShardManifest) -> str | None:
    """Return the towers of the embeddings on which a model was trained; None if `--gc` has removed the manifest that names them."""
    paths = model.inputs.get("embed", ())
    try:
        return _towers_of(store.read_shard(paths[0])) if paths else None
    except StorageError:
        return None


def _towers_of(embed: ShardManifest) -> str:
    """Return the names and weights of the towers that computed the embeddings."""
    towers = EmbedSettings.recorded(embed.settings["embed"]).towers
    return ", ".join(f"{ref.name} ({ref.model}, {ref.pretrained})" for ref in towers) or "the run's own tower"
