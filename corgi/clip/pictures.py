"""Preprocessed pixels of stored pictures, decoded by threads some batches ahead of the device."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from corgi.imaging.decode import decode_stored

Preprocess = Callable[[Image.Image], Tensor]


def pixel_batches(
    encoded: Sequence[bytes],
    transforms: Sequence[Preprocess],
    batch_size: int,
    num_threads: int,
    num_ahead: int = 1,
    spent: Callable[[float], None] = lambda cpu_s: None,
) -> Iterator[list[Shaped[Tensor, "n 3 height width"]]]:
    """Yield one stack of pixels per transform for each batch, in the order of the pictures.

    Each picture is decoded once, however many transforms there are. While one batch is in use, `num_ahead` are being decoded.
    Stacks are in pinned memory if there is a GPU. `spent` is called in each thread with the CPU-seconds spent on a picture.
    """

    def prepared(data: bytes) -> list[Tensor]:
        begun = time.thread_time()
        picture = decode_stored(data)
        pixels = [transform(picture) for transform in transforms]
        spent(time.thread_time() - begun)
        return pixels

    pinned = torch.cuda.is_available()
    starts = iter(range(0, len(encoded), batch_size))
    ahead: deque[list[Future[list[Tensor]]]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:

        def submit() -> None:
            start = next(starts, None)
            if start is not None:
                ahead.append([pool.submit(prepared, data) for data in encoded[start : start + batch_size]])

        for _ in range(1 + num_ahead):
            submit()
        while ahead:
            rows = [future.result() for future in ahead.popleft()]
            submit()
            stacks = [torch.stack(stack) for stack in zip(*rows, strict=True)]
            yield [stack.pin_memory() for stack in stacks] if pinned else stacks
