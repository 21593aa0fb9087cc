"""The device of a process that was not told one: the GPU it was given, else the CPU."""

import torch


def given_device() -> torch.device:
    """Return this process's GPU, or the CPU where it sees none; Ray hides the GPUs a worker did not reserve."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
