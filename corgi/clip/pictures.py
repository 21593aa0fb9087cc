"""Stored pictures to preprocessed pixels, decoded by threads one batch ahead of the device."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.data.image import decode_stored

Preprocess = Callable[[Image.Image], Tensor]


def pixel_batches(
    encoded: Sequence[bytes], transforms: Sequence[Preprocess], batch_size: int, num_threads: int
) -> Iterator[list[Float[Tensor, "n 3 height width"]]]:
    """Yield, for each batch from the first picture on, one stack of pixels per transform.

    Each picture is decoded once, however many transforms there are.
    """

    def prepared(data: bytes) -> list[Tensor]:
        picture = decode_stored(data)
        return [transform(picture) for transform in transforms]

    starts = range(0, len(encoded), batch_size)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        ahead = [
            [pool.submit(prepared, data) for data in encoded[start : start + batch_size]]
            for start in starts[:1]
        ]
        for start in starts:
            current = ahead.pop()
            following = encoded[start + batch_size : start + 2 * batch_size]
            ahead.append([pool.submit(prepared, data) for data in following])
            rows = [future.result() for future in current]
            yield [torch.stack(stack) for stack in zip(*rows, strict=True)]
