"""The captions of a picture and their words in the prior's training: which one is drawn, whose states it reads, how many."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from corgi.flow.context import Context
from corgi.settings.clip import EmbedSettings
from corgi.settings.errors import SettingsError
from corgi.settings.models import PriorSettings
from corgi.tables.manifest import ShardManifest


def check_words(context: Context, settings: PriorSettings) -> None:
    """Refuse a prior whose words the embed stage did not encode, or encoded in another width.

    Raises:
        SettingsError: there are no such encodings.

    """
    if not settings.num_text_tokens:
        return
    embedded = context.store.read_shard(context.entries("embed")[0].path)
    column = f"{words_of(embedded, settings)}/tokens"
    has = any(entry.table == "caption_tokens" for entry in embedded.files)
    schema = context.store.schema(embedded, "caption_tokens") if has else None
    width = schema.field(column).type.value_type.list_size if schema and column in schema.names else 0
    if width != settings.encoding_dim:
        raise SettingsError(
            f"prior.num_text_tokens={settings.num_text_tokens} reads {settings.encoding_dim} numbers a word, and the embeddings hold {width} in {column}; "
            "committed work is safe; set prior.encoding_dim, name an encoder in embed.tokens, or set prior.num_text_tokens=0"
        )


def words_of(embedded: ShardManifest, settings: PriorSettings) -> str | None:
    """Return the name of the text encoder a prior reads words of, None for a prior without words."""
    if not settings.num_text_tokens:
        return None
    stored = EmbedSettings.recorded(embedded.settings.get("embed", {})).tokens
    return settings.text_encoder or (stored[0].name if stored else "")


def cut_or_pad(
    words: Float[Tensor, "batch slots length width"], number: int
) -> Float[Tensor, "batch slots number width"]:
    """Return the first `number` words of each caption, shorter ones followed by zeros, which the network takes as padding."""
    return F.pad(words[:, :, :number], (0, 0, 0, max(0, number - words.shape[2])))


def pick(
    captions: Float[Tensor, "batch slots *dims"], count: Int[Tensor, "batch"], place: Float[Tensor, "batch"]
) -> Float[Tensor, "batch *dims"]:
    """Return the caption at a place in 0..1 among the first `count` of each row."""
    index = (place * count).long().clamp(max=captions.shape[1] - 1)
    return captions[torch.arange(len(captions), device=captions.device), index]
