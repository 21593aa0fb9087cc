"""The interpreter that exported folders are loaded in."""

from collections.abc import Iterator

import pytest

from tests.support.strangers import Strangers


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strangers]:
    """An interpreter that cannot import corgi."""
    running = Strangers(tmp_path_factory.mktemp("strangers"))
    yield running
    running.close()
