"""A stage as an object: its name, what it is made from, and what it does."""

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

    A stage's module is light: finished work must be recognised without importing Ray or torch, so methods import what they need.
    """

    name: str
    title: str = ""
    """Heading of the stage's section of the report; `intro` is the line below it."""
    intro: str = ""
    inputs: tuple[str, ...] = ()
    """Stages whose tables it reads."""
    reads: tuple[str, ...] = ()
    """Further stages whose tables it reads, each made from `inputs` alone by fixed rules. They are in no key, and are made only
    where a stage that reads them is to be made: a finished run does not need them."""
    settings: tuple[str, ...] = ()
    """Sections of the recipe that it reads."""
    version: int = 1
    """Raised if equal input would give a different output."""
    partition: str | None = None
    """The input with which it shares its shards, where it has one task per shard."""

    def __init__(self, run_with: str | None = None) -> None:
        """Make the stage of a pipeline; `run_with` names the stage with which it runs when only that one is asked for."""
        self.run_with = run_with

    @abstractmethod
    def run(self, context: "Context") -> list[ShardTask]:
        """Commit the shards that are missing; return the tasks of all shards in order."""

    def fingerprint(self, recipe: Recipe) -> Fingerprint:
        """Return what the stage depends on besides settings and inputs: the content of files that the recipe names."""
        return None

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return a version for each part of the stage that a recipe touches.

        It is raised if only results that use that part would change; no key contains a 0 (docs/decisions/0007).
        """
        return {}

    def cost(self, recipe: Recipe, num_rows: int | None = None) -> list[str]:
        """Return what a plan prints about the stage's cost; `num_rows` is what the plan stage kept, None while it is not done."""
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
        """Publish the next version of committed shards from the present one (corgi/flow/amend.py)."""


class FollowingStage(Stage):
    """A stage that can make its shards while those of its partition are still being made."""

    @abstractmethod
    def follow(self, context: "Context", arriving: Arriving) -> None:
        """Make each shard as soon as its own input is committed, until no more may come."""
