"""The device of a process that was not told one: the GPU it was given, else the CPU."""

import torch

ON_CPU, ON_GPU = 8, 64
"""Images in one call of a convolutional network that is only applied. On a CPU the maps of more than about 8 images of 192 px are larger than the 32 MB
up to which glibc keeps freed memory: every layer's memory is mapped anew, which takes as long as the layer."""


def given_device() -> torch.device:
    """Return this process's GPU, or the CPU where it sees none; Ray hides the GPUs a worker did not reserve."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def images_at_once(device: torch.device) -> int:
    """Return how many images a convolutional network is given at once on a device."""
    return ON_CPU if device.type == "cpu" else ON_GPU
