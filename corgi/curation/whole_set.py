"""The set that curate judges, in blocks: by reference to what workers hold, with the verdict so far."""

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
"""Per row the index of its reason in REASONS, KEPT where it has none."""


def code_of(reason: Reason) -> int:
    """Return the number by which a verdict names a reason."""
    return REASONS.index(reason)


@dataclass
class WholeSet:
    """All blocks; `blocks` and `reasons` are results that workers hold, and `facts` what was found on the way."""

    root: str
    calls: Tasks
    plans: Sequence[BlockPlan]
    blocks: Sequence[Ref]
    reasons: Sequence[Ref]
    num_parts: int
    facts: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def num_rows(self) -> int:
        """Return the rows of all blocks."""
        return sum(plan.num_rows for plan in self.plans)

    def flagged(self, found: Sequence[Ref]) -> list[Ref]:
        """Return, block by block, which rows are among the numbers in some results."""
        return self.calls.start_each(flags, len(self.plans), self.plans, list(found))

    def drop(self, found: Sequence[Ref], reason: Reason) -> None:
        """Give a reason to the rows, by number, that have none yet."""
        code = code_of(reason)
        told = zip(self.reasons, self.flagged(found), strict=True)
        self.reasons = [self.calls.start(dropped, reasons, gone, code) for reasons, gone in told]


def dropped(reasons: Reasons, gone: Bool[np.ndarray, "n"], code: int) -> Reasons:
    """Return the reasons with one more for the rows that have none yet."""
    return np.where(gone & (reasons == KEPT), np.int8(code), reasons)
