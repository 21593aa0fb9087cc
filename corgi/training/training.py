"""The specification of one training as plain data, which the driver sends to the workers."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corgi.settings.section import digest
from corgi.settings.training import TrackingSettings, TrainingSettings
from corgi.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from corgi.training.objective import Objective


@dataclass(frozen=True)
class Training:
    """What to train, where its checkpoints are stored, and how it is tracked.

    `name` is the name of the tracker's run; `folder` is absolute and shared by all workers; `objective` is
    built in each worker with `arguments` (JSON); `group` is the pipeline run's name.
    """

    name: str
    folder: str
    objective: "type[Objective]"
    arguments: dict[str, Any]
    settings: TrainingSettings
    tracking: TrackingSettings
    group: str
    seed: int

    def __post_init__(self) -> None:
        if not Path(self.folder).is_absolute():
            raise ValueError(f"folder {self.folder!r} is relative, but workers run in other folders")

    @property
    def path(self) -> Path:
        """Return the folder of checkpoints, metrics and tracker files."""
        return Path(self.folder)

    @property
    def tracked(self) -> TrackedRun:
        """Return what the tracker needs to know about this training."""
        config = {
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "key": digest(self.arguments),
        }
        return TrackedRun(self.name, self.path, self.group, self.tracking, config)

    @property
    def metrics_file(self) -> Path:
        """Return the file of the metric lines."""
        return self.tracked.metrics_file

    @property
    def meaning(self) -> str:
        """Return a digest of what determines the weights. A training uses a folder's checkpoints only if their meaning is its own."""
        return self.meaning_at(self.settings.zero_stage)

    def meaning_at(self, zero_stage: int) -> str:
        """Return the meaning that the same training would have at a ZeRO stage."""
        settings = {**self.settings.meaning(), "zero_stage": zero_stage}
        named = f"{self.objective.__module__}:{self.objective.__qualname__}"
        return digest({"objective": named, "seed": self.seed, "settings": settings})

    @property
    def remote_name(self) -> str:
        """Return the training's name in object storage: its path below the folder `store` if it is in one, else group, name and meaning."""
        parts = self.path.parts
        if "store" in parts:
            index = len(parts) - 1 - parts[::-1].index("store")
            return "/".join(parts[index + 1 :])
        return f"{self.group}/{self.name}-{self.meaning}"

    def build(self) -> "Objective":
        """Return the objective, built with its arguments."""
        return self.objective(**self.arguments)
