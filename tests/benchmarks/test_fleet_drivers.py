"""The drivers of a simulated fleet: what they ask of the store grows with the shards only where it must, and then 64 at a time."""

import pytest

from benchmarks.fleet_drivers import TABLES, Fleet
from benchmarks.fleet_storage import REQUEST_S
from corgi.storage.many import MOST_AT_ONCE

SHARDS = 192


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"), SHARDS)


@pytest.mark.slow
def test_law_a_stage_is_closed_by_a_request_per_shard_and_opened_by_one(fleet: Fleet) -> None:
    for name in TABLES:
        made = fleet.plan_stage(name)
        fleet.storage.commit(name, [task.key for task in made])
        closed = fleet.cost(lambda name=name: fleet.close_stage(name))
        assert SHARDS <= closed.requests <= SHARDS + 16
        assert closed.waited_s < closed.one_by_one_s / MOST_AT_ONCE + 16 * REQUEST_S
        opened = fleet.cost(lambda name=name: fleet.open_inputs(name))
        assert opened.requests == 1
    shift = fleet.cost(fleet.open_for_shift)
    assert shift.requests == 3
    assert fleet.cost(fleet.status).requests < 32
