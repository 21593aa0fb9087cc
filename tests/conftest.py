"""What all tests share: this checkout first on every path, and one local Ray for those that need it."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

HOME = str(Path(__file__).resolve().parents[1])

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread per process: bits repeat, and threads of small products do not wait for each other on a busy machine, where
# they once took a test from 20 seconds to more than 180.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
# Ray's node warns on screen about a disk over 95 % full, between the lines these tests count; a full disk is no defect.
os.environ["RAY_local_fs_capacity_threshold"] = "1"  # noqa: SIM112 - so Ray spells it
os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)
os.environ["PYTHONPATH"] = os.pathsep.join([HOME, *filter(None, [os.environ.get("PYTHONPATH")])])
sys.path.insert(0, HOME)
# A shell without job control starts background commands with SIGINT ignored, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No test asserts on seconds, and so no example of a property does.
hypothesis.settings.register_profile("corgi", deadline=None)
hypothesis.settings.load_profile("corgi")


@pytest.fixture
def promise(request: pytest.FixtureRequest) -> Callable[[int, str], None]:
    """Record the figure measured for a promise of docs/promises.md; call it after the last assertion."""
    from tests.support.promises import recorder

    return recorder(request.node.nodeid)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Leave shapes unchecked in a test with a long learning loop."""
    from tests.support.shapes import unchecked

    with unchecked():
        yield


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Start a Ray of four logical CPUs on this machine, once for all tests."""
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()
