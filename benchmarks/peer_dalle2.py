"""DALLE2-pytorch's prior on the benchmark's shape, run in its own environment; prints one JSON object of seconds.

Arguments: width depth words batch train|sample steps repeats, then fp32 or bf16.
"""

import json
import sys
import time
from contextlib import nullcontext

import torch
from dalle2_pytorch import DiffusionPrior, DiffusionPriorNetwork  # pyright: ignore[reportMissingImports]


def main() -> None:
    """Build the peer's prior, run the asked work, print the median seconds."""
    width, depth, words, batch = (int(value) for value in sys.argv[1:5])
    work, steps, repeats, precision = sys.argv[5], int(sys.argv[6]), int(sys.argv[7]), sys.argv[8]
    torch.manual_seed(0)
    network = DiffusionPriorNetwork(
        dim=width, depth=depth, dim_head=64, heads=width // 64, max_text_len=words, ff_mult=4
    )
    prior = DiffusionPrior(
        net=network,
        image_embed_dim=width,
        timesteps=1000,
        sample_timesteps=steps,
        condition_on_text_encodings=True,
        image_embed_scale=1.0,
    )
    text, image = torch.randn(batch, width), torch.randn(batch, width)
    encodings = torch.randn(batch, words, width)
    optimizer = torch.optim.AdamW(prior.parameters(), 1e-4)
    cast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    def once() -> float:
        started = time.perf_counter()
        if work == "train":
            with cast:
                loss = prior(text_embed=text, image_embed=image.clone(), text_encodings=encodings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        else:
            with torch.no_grad():
                prior.p_sample_loop(
                    (batch, width), {"text_embed": text, "text_encodings": encodings}, timesteps=steps
                )
        return time.perf_counter() - started

    once()
    taken = sorted(once() for _ in range(repeats))
    parameters = sum(weights.numel() for weights in prior.parameters())
    print(json.dumps({"seconds": taken[len(taken) // 2], "parameters": parameters}))


if __name__ == "__main__":
    main()
