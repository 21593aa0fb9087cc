"""Checks that all workers run the same torch on the same CUDA: otherwise gradients may differ and collectives may hang."""

import socket

import torch

from corgi.settings.errors import ClusterError
from corgi.training.ranks import gathered


def check_versions() -> None:
    """Compare every worker's torch with worker 0's; a collective.

    Raises:
        ClusterError: a worker has another torch, or one built for another CUDA.

    """
    everyone = gathered((socket.gethostname(), installed()))
    first_host, first = everyone[0]
    for number, (host, other) in enumerate(everyone):
        if other != first:
            raise ClusterError(
                f"worker {number} on {host} has {other}, but worker 0 on {first_host} has {first}; committed work is safe; "
                "install the packages of requirements.lock on every node, from one image"
            )


def installed() -> str:
    """Return this process's version of torch and the CUDA version it was built for, as text."""
    return f"torch {torch.__version__.partition('+')[0]} {f'for CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'}"
