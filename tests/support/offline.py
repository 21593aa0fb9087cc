"""Reads the steps out of a W&B offline folder, as `wandb sync` would."""

from pathlib import Path

from corgi.tracking.offline import messages, steps


def offline_steps(folder: Path) -> list[int]:
    """Return the steps of the history lines of an offline folder, in order, each once."""
    found = next(
        folder.glob("run-*.wandb"), None
    )  # a process killed in its first second leaves an empty folder
    return list(dict.fromkeys(steps(messages(found)))) if found else []
