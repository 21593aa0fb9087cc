"""Programs outside Python that some tests need: skipped with the reason where they are missing, never in CI."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def require_program(name: str) -> Path:
    """Return the program's path; without it skip with the reason, or fail when the environment variable CI is set."""
    found = shutil.which(name)
    return Path(found) if found else missing(f"{name} is not installed")


def missing(reason: str) -> NoReturn:
    """Skip the test that asks because the machine lacks something; fail when the environment variable CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must have it", pytrace=False)
    pytest.skip(reason)
