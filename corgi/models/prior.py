"""The prior: a transformer from a caption's embedding and a noisy z_t to an estimate of z_0.

Words and text embedding come first in the sequence and depend on neither time nor noise. Under the causal mask their keys and
values are therefore the same for every step, candidate and noise level: sampling computes them once (`prefix`), and training
uses several noise levels per caption (z_t of shape [batch, levels, dim]).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# torch, numpy and scikit-learn have functions without types

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from corgi.diffusion.learned import LearnedShift
from corgi.diffusion.shifted import ShiftTable
from corgi.models.embedding import sinusoidal_embedding
from corgi.models.prior_config import PRESETS, PriorConfig
from corgi.models.transformer import Block, Memory, View, packed_mask, rotary_angles

__all__ = ["PRESETS", "Prefix", "Prior", "PriorConfig"]


class Prefix(NamedTuple):
    """A caption's tokens with their keys and values; computed by `Prior.prefix`, used by `Prior.denoise`."""

    tokens: Float[Tensor, "batch length width"]
    memory: tuple[Memory, ...]
    """Keys and values of every block; empty without a causal mask, since the caption's tokens then attend to the noise."""

    def expand(self, batch: int) -> "Prefix":
        """Repeat a prefix of one caption for a whole batch."""
        return type(self)(
            self.tokens.expand(batch, -1, -1), tuple(memory.expand(batch) for memory in self.memory)
        )


def _project(inputs: int, width: int) -> nn.Sequential:
    """Map an embedding into the token stream."""
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, width))


def _project_sinusoid(width: int) -> nn.Sequential:
    """Map a sinusoidal embedding into the token stream."""
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


class Prior(nn.Module):
    """Estimate z_0 from [text encodings | text | time | cluster | z_t | learned query]; the output is read at the query.

    With `standardise` the network reads L^-1 (z_t - mu) and returns mu + L (its output), both in float32, so that half
    precision inside never represents z_t near mu. A table with one cluster standardises globally; one with k centres
    each sample on its own cluster. It is a buffer of the network and is saved in its state dict.
    The last block computes only the query token.
    """

    def __init__(self, config: PriorConfig, table: ShiftTable | None = None) -> None:
        """Build the network; ValueError if `standardise` or `learned_shift` is set without a table of dimension `dim`."""
        super().__init__()
        if table is None and (config.standardise or config.learned_shift):
            raise ValueError("a standardised prior, or one that learns its shift, needs a shift table")
        if table is not None and table.dim != config.dim:
            raise ValueError(f"the shift table has dimension {table.dim}, but the prior has {config.dim}")
        self.config = config
        self.table = ShiftTable.from_state(table.state_dict()) if config.standardise and table else None
        self.shift = LearnedShift(table) if config.learned_shift and table else None
        width = config.width
        self.text = _project(config.text_dim, width)
        self.time = _project_sinusoid(width)
        self.cluster = _project_sinusoid(width) if config.cluster_token else None
        self.noisy = _project(config.dim, width)
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.null_text = nn.Parameter(torch.randn(width) * width**-0.5)
        self.encodings, self.null_encodings = None, None
        if config.num_text_tokens:
            self.encodings = nn.Sequential(
                nn.LayerNorm(config.encoding_dim), _project(config.encoding_dim, width)
            )
            self.null_encodings = nn.Parameter(torch.randn(config.num_text_tokens, width) * width**-0.5)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        last = nn.Linear(config.dim, config.dim)
        # With a zero last layer the untrained network returns mu, the best constant, instead of noise.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(width, config.dim), nn.SiLU(), last)
        self.choice = None
        if config.choice_clusters:
            self.choice = nn.Sequential(
                nn.Linear(config.text_dim, width),
                nn.SiLU(),
                nn.LayerNorm(width),
                nn.Linear(width, config.choice_clusters),
            )

    def forward(
        self,
        z_t: Float[Tensor, "batch *levels dim"],
        t: Int[Tensor, "batch *levels"],
        text: Float[Tensor, "batch text_dim"],
        cluster: Int[Tensor, "batch"],
        encodings: Float[Tensor, "batch words encoding_dim"] | None = None,
        drop_mask: Bool[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch *levels dim"]:
        """Predict the parameterisation `prediction`, in float32 at least.

        Args:
            z_t: noisy embedding; with a middle axis, several noise levels of one caption, which do not attend to
                each other.
            t: timestep 1..T of the full schedule.
            text: CLIP text embedding of the caption.
            cluster: cluster index; used if the network has a cluster token or a table of several clusters.
            encodings: word encodings, if the network reads them; all-zero words are padding.
            drop_mask: True where the caption is replaced by the learned null (classifier-free guidance).

        """
        caption = self._caption(text, encodings, drop_mask)
        return self._answer(z_t, t, cluster, Prefix(caption, ()))

    def prefix(
        self,
        text: Float[Tensor, "batch text_dim"],
        encodings: Float[Tensor, "batch words encoding_dim"] | None = None,
        drop_mask: Bool[Tensor, "batch"] | None = None,
    ) -> Prefix:
        """Process captions once for any number of steps, candidates and noise levels."""
        caption = self._caption(text, encodings, drop_mask)
        if not self.config.causal:
            return Prefix(caption, ())
        view = View(causal=True, angles=self._angles(torch.arange(caption.shape[1], device=caption.device)))
        tokens, memory = caption, []
        for block in self.blocks[:-1]:
            tokens, keys_and_values = block(tokens, view)
            memory.append(keys_and_values)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return Prefix(caption, (*memory, last.memory(tokens, view)))

    def denoise(
        self,
        prefix: Prefix,
        z_t: Float[Tensor, "batch *levels dim"],
        t: Int[Tensor, "batch *levels"],
        cluster: Int[Tensor, "batch"] | Int[Tensor, "batch levels"],
    ) -> Float[Tensor, "batch *levels dim"]:
        """Predict as `forward` does, for captions already processed; `cluster` may differ between levels."""
        return self._answer(z_t, t, cluster, prefix)

    def choice_logits(self, text: Float[Tensor, "batch text_dim"]) -> Float[Tensor, "batch k"]:
        """Return scores of the clusters for each caption by the text -> cluster head; ValueError without one."""
        if self.choice is None:
            raise ValueError("this prior has no text -> cluster head")
        return self.choice(text.to(self.query.dtype)).to(torch.promote_types(text.dtype, torch.float32))

    def _answer(self, z_t: Tensor, t: Tensor, cluster: Tensor, prefix: Prefix) -> Tensor:
        """Run the network on the noise levels; a prefix without memory is processed together with them."""
        levels = z_t.unsqueeze(1) if z_t.ndim == 2 else z_t
        batch, count, _ = levels.shape
        time = t.reshape(batch, count)
        clusters = (cluster.unsqueeze(1) if cluster.ndim == 1 else cluster).expand(batch, count)
        if not self.config.causal and count > 1:
            # The caption's tokens attend to the noise, so each level needs a sequence of its own.
            prefix = Prefix(prefix.tokens.repeat_interleave(count, 0), ())
            levels, time, clusters = (x.flatten(0, 1).unsqueeze(1) for x in (levels, time, clusters))
        output = self.head(self._queries(self._suffix(levels, time, clusters), prefix))
        output = output.to(torch.promote_types(z_t.dtype, torch.float32))
        if self.table is not None and self.config.prediction == "x0":
            flat = self.table.unwhiten(output.flatten(0, 1), self._table_row(clusters.flatten()))
            output = flat.view_as(output)
        return output.reshape(z_t.shape)

    def _queries(self, suffix: Tensor, prefix: Prefix) -> Tensor:
        """Return the query tokens [batch, levels, width] after the last block."""
        start, size = prefix.tokens.shape[1], self.config.suffix_length
        count = suffix.shape[1] // size
        views = self._views(start, count, bool(prefix.memory), suffix.device)
        tokens = suffix if prefix.memory else torch.cat([prefix.tokens, suffix], dim=1)
        for index, block in enumerate(self.blocks):
            past = prefix.memory[index] if prefix.memory else None
            view = views[index == len(self.blocks) - 1]
            if self.config.activation_checkpointing and self.training:
                tokens = checkpoint(_output, block, tokens, view, past, use_reentrant=False)
            else:
                tokens = _output(block, tokens, view, past)
        return tokens

    def _views(self, start: int, count: int, read: bool, device: torch.device) -> tuple[View, View]:
        """Return the view of every block but the last, and that of the last, which computes only the queries."""
        size = self.config.suffix_length
        position = torch.arange(start + count * size, device=device)
        queries = start + size * torch.arange(1, count + 1, device=device) - 1
        rotary_position = torch.where(position < start, position, start + (position - start) % size)
        if not self.config.causal or (count == 1 and not read):
            angles = self._angles(rotary_position)
            return View(None, self.config.causal, angles), View(None, False, angles, queries)
        allowed, skipped = packed_mask(start, size, count, device), start if read else 0
        angles = self._angles(rotary_position[skipped:])
        return (
            View(allowed[skipped:], False, angles),
            View(allowed[queries], False, angles, queries - skipped),
        )

    def _angles(self, position: Tensor) -> Tensor | None:
        return rotary_angles(position, self.config.head_dim) if self.config.rotary else None

    def _caption(self, text: Tensor, encodings: Tensor | None, drop_mask: Tensor | None) -> Tensor:
        """Build the caption's tokens [batch, prefix, width] in the dtype of the weights."""
        dropped = text.new_zeros(len(text), dtype=torch.bool) if drop_mask is None else drop_mask
        caption = torch.where(dropped[:, None], self.null_text, self.text(text.to(self.query.dtype)))
        words = self._words(encodings, dropped)
        return caption[:, None] if words is None else torch.cat([words, caption[:, None]], dim=1)

    def _suffix(self, z_t: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        """Build the tokens of every noise level [batch, levels * suffix, width]."""
        dtype, shape = self.query.dtype, (*t.shape, self.config.width)
        noisy = z_t
        if self.table is not None:
            flat = self.table.whiten(z_t.flatten(0, 1), self._table_row(cluster.flatten()))
            noisy = flat.view_as(z_t)
        tokens = [self.time(sinusoidal_embedding(t.flatten(), self.config.width).to(dtype)).view(shape)]
        if self.cluster is not None:
            index = sinusoidal_embedding(cluster.flatten(), self.config.width)
            tokens.append(self.cluster(index.to(dtype)).view(shape))
        tokens += [self.noisy(noisy.to(dtype)), self.query.expand(shape)]
        return torch.stack(tokens, dim=2).flatten(1, 2)

    def _words(self, encodings: Tensor | None, dropped: Tensor) -> Tensor | None:
        """Project the word encodings; padding and dropped captions become learned nulls."""
        if self.encodings is None or self.null_encodings is None:
            return None
        if encodings is None or encodings.shape[1] != self.config.num_text_tokens:
            raise ValueError(f"the prior takes {self.config.num_text_tokens} word encodings per caption")
        absent = (encodings == 0).all(dim=-1) | dropped[:, None]
        words = self.encodings(encodings.to(self.query.dtype))
        return torch.where(absent[..., None], self.null_encodings, words)

    def _table_row(self, cluster: Tensor) -> Tensor:
        """Return the row of the table for each sample: its cluster, or the only row."""
        several = self.table is not None and self.table.num_clusters > 1
        return cluster if several else torch.zeros_like(cluster)


def _output(block: nn.Module, tokens: Tensor, view: View, past: Memory | None) -> Tensor:
    """Apply a block and discard its keys and values, which are not reused."""
    return block(tokens, view, past)[0]
