"""Which stages of a pipeline a command runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from corgi.flow.stage import Stage
from corgi.settings.errors import SettingsError


@dataclass
class Selection:
    """Which stages a command runs; the others must already be complete."""

    first: str | None = None
    last: str | None = None
    only: str | None = None
    force: bool = False

    def of(self, stages: Sequence[Stage]) -> list[Stage]:
        """Return the selected stages in order.

        Raises:
            SettingsError: a name is not one of the stages.

        """
        names = [stage.name for stage in stages]
        for name in (self.first, self.last, self.only):
            if name is not None and name not in names:
                raise SettingsError(
                    f"no stage {name!r}; nothing was started; the stages are {', '.join(names)}"
                )
        if self.only is not None:
            return _with_what_they_read(
                [stage for stage in stages if self.only in (stage.name, stage.run_with)], stages
            )
        start = names.index(self.first) if self.first else 0
        end = names.index(self.last) + 1 if self.last else len(names)
        if start >= end:
            raise SettingsError(
                f"--from {self.first} comes after --until {self.last}; nothing was started; the order is {', '.join(names)}"
            )
        return _with_what_they_read(stages[start:end], stages)

    def with_inputs(self, stages: Sequence[Stage]) -> set[str]:
        """Return the names of the selected stages and of all stages from which they are made."""
        needed = {stage.name for stage in self.of(stages)}
        for stage in reversed(stages):
            needed |= set(stage.inputs) if stage.name in needed else set()
        return needed


def _with_what_they_read(chosen: Sequence[Stage], stages: Sequence[Stage]) -> list[Stage]:
    """Return the chosen stages and those that they read in addition to their inputs, in order."""
    names = {stage.name for stage in chosen} | {name for stage in chosen for name in stage.reads}
    return [stage for stage in stages if stage.name in names]
