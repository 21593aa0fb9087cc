"""The set that curate decides about, in blocks: references to data in the workers' memory, with the reasons so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int8

from corgi.curation.block import BlockPlan
from corgi.curation.exchange import flags
from corgi.flow.tasks import Ref, Tasks
from corgi.tables.schema import Reason

REASONS = tuple(Reason)
KEPT = -1
Reasons = Int8[np.ndarray, "n"]
"""For each row the index of its reason in REASONS, or KEPT if it has none."""


def code_of(reason: Reason) -> int:
    """Return a reason's index in REASONS."""
    return REASONS.index(reason)


@dataclass
class WholeSet:
    """All blocks; `blocks` and `reasons` are results in the workers' memory, and `facts` are values recorded with the shards."""

    root: str
    calls: Tasks
    plans: Sequence[BlockPlan]
    blocks: Sequence[Ref]
    reasons: Sequence[Ref]
    num_parts: int
    facts: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def num_rows(self) -> int:
        """Return the number of rows of all blocks."""
        return sum(plan.num_rows for plan in self.plans)

    def flagged(self, found: Sequence[Ref]) -> list[Ref]:
        """Return, block by block, which rows are among the numbers in some results."""
        return self.calls.start_each(flags, len(self.plans), self.plans, list(found))

    def drop(self, found: Sequence[Ref], reason: Reason) -> None:
        """Set a reason for the rows with these numbers that have none yet."""
        code = code_of(reason)
        told = zip(self.reasons, self.flagged(found), strict=True)
        self.reasons = [self.calls.start(dropped, reasons, gone, code) for reasons, gone in told]


def dropped(reasons: Reasons, gone: Bool[np.ndarray, "n"], code: int) -> Reasons:
    """Return the reasons, with `code` for the flagged rows that have none yet."""
    return np.where(gone & (reasons == KEPT), np.int8(code), reasons)
