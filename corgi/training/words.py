"""The word encodings that a prior or a decoder reads: from which text encoder, of what width, and how many per caption."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from corgi.feeding.packed_set import PackedSet
from corgi.feeding.word_states import WordStates
from corgi.flow.context import Context
from corgi.settings.clip import EmbedSettings
from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import SettingsError
from corgi.settings.models import PriorSettings
from corgi.tables.manifest import ShardManifest

Reader = PriorSettings | DecoderSettings
"""The settings of a network that may read words."""


def check_words(context: Context, settings: Reader, section: str = "prior") -> None:
    """Check that the embed stage stored the word encodings that a network reads, in the width that it reads.

    Raises:
        SettingsError: there are no such encodings.

    """
    if not settings.num_text_tokens:
        return
    embedded = context.store.read_shard(context.entries("embed")[0].path)
    column = f"{words_of(embedded, settings)}/tokens"
    is_stored = any(entry.table == "caption_tokens" for entry in embedded.files)
    schema = context.store.schema(embedded, "caption_tokens") if is_stored else None
    width = schema.field(column).type.value_type.list_size if schema and column in schema.names else 0
    if width != settings.encoding_dim:
        raise SettingsError(
            f"{section}.num_text_tokens={settings.num_text_tokens} reads {settings.encoding_dim} numbers per word, but {column} of the embed stage has {width}; "
            f"committed work is safe; set {section}.encoding_dim, name an encoder in embed.tokens, or set {section}.num_text_tokens=0"
        )


def words_of(embedded: ShardManifest, settings: Reader) -> str | None:
    """Return the name of the text encoder whose word encodings a network reads; None for a network without words."""
    if not settings.num_text_tokens:
        return None
    stored = EmbedSettings.recorded(embedded.settings.get("embed", {})).tokens
    return settings.text_encoder or (stored[0].name if stored else "")


def stored_words(packed: PackedSet, embed: str | None, settings: Reader) -> WordStates | None:
    """Return the reader of a network's word encodings; `embed` is the path of the embed stage's manifest. None for a network without words."""
    if embed is None or not settings.num_text_tokens:
        return None
    store = packed.store
    manifest = store.read_stage(embed)
    encoder = words_of(store.read_shard(manifest.shards[0].path), settings)
    return WordStates(store, packed.names, store.each_listed(manifest), encoder or "")


def cut_or_pad(
    words: Float[Tensor, "batch slots length width"], number: int
) -> Float[Tensor, "batch slots number width"]:
    """Return the first `number` words of each caption; shorter captions are padded with zeros."""
    return F.pad(words[:, :, :number], (0, 0, 0, max(0, number - words.shape[2])))
