"""A stage as an object: its name, its inputs, and its work."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask

if TYPE_CHECKING:
    from corgi.flow.context import Context

Fingerprint = list[str] | dict[str, str] | str | None
Arriving = Callable[[], tuple[list[ShardTask], bool]]
"""Returns the tasks that can be made since the last call, and whether more may come."""


class Stage(ABC):
    """One step from committed tables to committed tables.

    A stage's module imports little: finished work must be recognised without importing Ray or torch, so methods import what they need.
    """

    name: str
    title: str = ""
    """Heading of the stage's section of the report; `intro` is the line below it."""
    intro: str = ""
    inputs: tuple[str, ...] = ()
    """Stages whose tables it reads."""
    reads: tuple[str, ...] = ()
    """Other stages whose tables it reads, each made only from `inputs` by fixed rules. They are part of no key, and are made only
    if a stage that reads them must be made: a finished run does not need them."""
    settings: tuple[str, ...] = ()
    """Sections of the recipe that it reads."""
    version: int = 1
    """Raised if equal input would give a different output."""
    partition: str | None = None
    """The input whose shards determine its own, if it has one task per shard of that input."""

    def __init__(self, run_with: str | None = None) -> None:
        """Make the stage of a pipeline; with `--only` for the stage named by `run_with` this stage runs too."""
        self.run_with = run_with

    @abstractmethod
    def run(self, context: "Context") -> list[ShardTask]:
        """Commit the shards that are missing; return the tasks of all shards in order."""

    def fingerprint(self, recipe: Recipe) -> Fingerprint:
        """Return what the stage depends on in addition to settings and inputs: the content of files that the recipe names."""
        return None

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return a version for each part of the stage that a recipe uses.

        It is raised if only results that use that part change; a version 0 is not part of any key (docs/decisions/0007).
        """
        return {}

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return the lines that a plan prints about the stage's cost; `num_rows` is the number of rows that the plan stage kept, None while it is not done."""
        return []

    def side_by_side(self, recipe: Recipe) -> dict[str, str] | None:
        """Return the environment of a process that makes this stage concurrently with others; None if they must run one after the other.

        The others are later stages that do not need this one; for a `FollowingStage`, the one it follows.
        """
        return None


class RevisableStage(Stage):
    """A stage that can make the next version of its shards: rows fetched again, rows taken down."""

    @abstractmethod
    def revise(self, context: "Context", tasks: Sequence[ShardTask]) -> None:
        """Publish the next version of committed shards, made from the current one (corgi/flow/amend.py)."""


class FollowingStage(Stage):
    """A stage that can make its shards while those of its partition are still being made."""

    @abstractmethod
    def follow(self, context: "Context", arriving: Arriving) -> None:
        """Make each shard as soon as its own input is committed, until no more may come."""
