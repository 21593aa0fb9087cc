"""Checks that all workers run one torch on one CUDA: gradients of others may differ, and collectives may hang."""

import socket

import torch

from corgi.settings.errors import ClusterError
from corgi.training.ranks import gathered


def check_versions() -> None:
    """Compare every worker's torch with worker 0's; a collective.

    Raises:
        ClusterError: one of them has another torch, or one built for another CUDA.

    """
    everyone = gathered((socket.gethostname(), installed()))
    first_host, first = everyone[0]
    for number, (host, found) in enumerate(everyone):
        if found != first:
            raise ClusterError(
                f"worker {number} on {host} has {found}, worker 0 on {first_host} has {first}; committed work is safe; "
                "install the packages of requirements.lock on every node, from one image"
            )


def installed() -> str:
    """Return this process's torch and the CUDA it was built for, in words."""
    return f"torch {torch.__version__.partition('+')[0]} {f'for CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'}"
