"""The tree of sums: every shard once, in order, whatever their number; one sum reaches the driver."""

from typing import Any

import pytest

from corgi.flow import tasks
from corgi.shift.sums import FAN_IN, MOST_SHARDS, shards_of_a_group, summed
from corgi.tables.embedded import EmbeddedShard


def named(shard: EmbeddedShard, mark: str) -> str:
    return f"{mark}{shard.name} "


def one_after_the_other(before: str, after: str, given: Any) -> str:
    return before + after


def shards(number: int) -> list[EmbeddedShard]:
    return [EmbeddedShard("root", f"{at:05d}", "e", "c") for at in range(number)]


@pytest.mark.parametrize("number", [0, 1, 2, FAN_IN, FAN_IN + 1, 64, 65, 200, 4_096, 40_000])
def test_law_sums_are_merged_in_the_order_of_the_shards(in_process: None, number: int) -> None:
    found = summed(named, one_after_the_other, shards(number), {"mark": "#"}, "sums")
    assert found == ("".join(f"#{at:05d} " for at in range(number)) or None)


def test_law_no_task_has_more_than_its_share(in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    real = tasks.Tasks.start

    def counted(self: tasks.Tasks, function: Any, *arguments: Any) -> Any:
        if function.__name__ == "_of_parts":
            taken.append(len(arguments) - 2)
        return real(self, function, *arguments)

    monkeypatch.setattr(tasks.Tasks, "start", counted)
    summed(named, one_after_the_other, shards(40_000), {"mark": ""}, "sums")
    assert max(taken) == FAN_IN
    assert len(taken) == 79 + 10 + 2 + 1
    assert [shards_of_a_group(number) for number in (0, 1, 64, 65, 640, 4_096, 500_000)] == [
        1,
        1,
        1,
        2,
        10,
        64,
        MOST_SHARDS,
    ]


def test_ray_and_this_process_give_the_same(ray_local: None) -> None:
    found = summed(named, one_after_the_other, shards(150), {"mark": "#"}, "sums")
    assert found == "".join(f"#{at:05d} " for at in range(150))
