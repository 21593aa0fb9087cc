"""What the tests of these suites share."""

from collections.abc import Iterator

import pytest

from tests.support.smoke_run import Smoke, smoke_run


@pytest.fixture(scope="session")
def smoke() -> Iterator[Smoke]:
    """Run the demo's smoke recipe once, whole."""
    with smoke_run() as made:
        yield made
