"""The precisions in which a training is timed here: those that the CPU has instructions for."""

from collections.abc import Mapping, Sequence

import torch


def computed(precisions: Sequence[str], has: Mapping[str, bool] | None = None) -> list[str]:
    """Return the precisions worth timing; bf16 is left out, and said so, where the CPU emulates it.

    An emulated product takes tens of times longer (docs/benchmarks.md), which hides what the training itself takes.
    `has` names the CPU's instruction sets, by default those of this one.
    """
    has = torch.cpu.get_capabilities() if has is None else has
    found = []
    for precision in precisions:
        if precision == "bf16" and not (has["avx512_bf16"] or has["amx_bf16"]):
            print("bf16: left out, because this CPU has no instructions for it", flush=True)
        else:
            found.append(precision)
    return found
