"""Token states of captions, from a CLIP tower's text model or any Hugging Face encoder, as a column of variable-length lists."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from huggingface_hub import constants as hub
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel

from corgi.clip.backbones import PACKAGE_PREFIX, package_path
from corgi.clip.towers import Tower
from corgi.models.device import given_device
from corgi.settings.clip import TOWER_PREFIX, TokenRef
from corgi.settings.errors import InputError
from corgi.tables.schema import vector


class TokenEncoder(Protocol):
    """Encodes captions as one state per token, and returns how many tokens of each caption are not padding."""

    def text_states(
        self, captions: Sequence[str]
    ) -> tuple[Float[Tensor, "n length width"], Int[Tensor, "n"]]:
        """Return the last hidden states and the number of tokens of each caption."""
        ...


class HuggingFaceEncoder:
    """A text encoder of transformers (BERT-like or T5-like) with its own tokenizer."""

    def __init__(self, ref: TokenRef) -> None:
        """Load tokenizer and weights.

        Raises:
            InputError: they cannot be loaded; the message names the model, the cache folder and a remedy.

        """
        source = str(package_path(ref.model)) if ref.model.startswith(PACKAGE_PREFIX) else ref.model
        local = {"local_files_only": True} if Path(source).exists() else {}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source, **local)
            kind: Any = AutoConfig.from_pretrained(source, **local).model_type
            family: Any = T5EncoderModel if kind in ("t5", "umt5", "mt5") else AutoModel
            kept = {"dtype": torch.bfloat16} if ref.precision == "bf16" else {}
            self.model: Any = family.from_pretrained(source, **kept, **local).eval().requires_grad_(False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(
                f"text encoder {ref.name} ({ref.model}) cannot be loaded: {' '.join(str(error).split())[:200]}; nothing was embedded; "
                f"downloads are kept in {hub.HF_HUB_CACHE}; without a network connection set its model to a local folder"
            ) from error
        self.model.to(given_device())
        self._max_tokens = ref.max_tokens

    @torch.no_grad()
    def text_states(
        self, captions: Sequence[str]
    ) -> tuple[Float[Tensor, "n length width"], Int[Tensor, "n"]]:
        """Return the last hidden states and the number of tokens of each caption."""
        words = self.tokenizer(
            list(captions), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        inputs = {name: words[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        states = self.model(**inputs).last_hidden_state
        return states.float().cpu(), words["attention_mask"].sum(dim=1)


def token_encoder(ref: TokenRef, towers: Iterable[Tower]) -> TokenEncoder:
    """Return the encoder that a reference names: a tower that is already loaded, or a Hugging Face model."""
    if not ref.model.startswith(TOWER_PREFIX):
        return HuggingFaceEncoder(ref)
    wanted = ref.model.removeprefix(TOWER_PREFIX)
    return next(tower for tower in towers if tower.name == wanted)


def token_column(
    encoder: TokenEncoder, captions: Sequence[str], max_tokens: int, batch_size: int
) -> tuple[pa.ListArray, int]:
    """Return one list of token states per caption, as half floats without padding, and their width.

    A repeated caption is encoded once. Batches consist of captions of about equal length, so that few tokens are padding.
    """
    distinct = sorted(dict.fromkeys(captions), key=len) or [""]
    states: dict[str, Float[np.ndarray, "tokens width"]] = {}
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        found, lengths = encoder.text_states(batch)
        for row, caption in enumerate(batch):
            number = min(int(lengths[row]), max_tokens)
            states[caption] = found[row, :number].numpy().astype(np.float16)
    width = next(iter(states.values())).shape[1]
    chosen = [states[caption] for caption in captions]
    flat = np.concatenate([*chosen, np.zeros((0, width), np.float16)])
    offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in chosen])]).astype(np.int32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), type=vector(width))
    return pa.ListArray.from_arrays(pa.array(offsets), values), width
