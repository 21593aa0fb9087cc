"""The device that a process uses if none is specified: the GPU it was assigned, else the CPU."""

import torch

ON_CPU, ON_GPU = 8, 64
"""Images per call of a convolutional network in inference. On a CPU the feature maps of more than about 8 images of 192 px exceed the
32 MB up to which glibc keeps freed memory: every layer's memory is then mapped again, which takes as long as the layer itself."""


def given_device() -> torch.device:
    """Return this process's GPU, or the CPU if it sees no GPU; Ray hides the GPUs that a worker did not reserve."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def images_at_once(device: torch.device) -> int:
    """Return how many images to pass to a convolutional network at once on a device."""
    return ON_CPU if device.type == "cpu" else ON_GPU
