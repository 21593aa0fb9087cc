"""The versions the cluster files must agree on, and where the files are stored."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = REPOSITORY / "cluster"


def locked_ray_version() -> str:
    """Return the Ray version of requirements.lock."""
    lock = (REPOSITORY / "requirements.lock").read_text()
    found = re.findall(r"^ray(?:\[[\w,-]+\])?==([\w.]+)", lock, re.MULTILINE)
    assert len(found) == 1, f"requirements.lock pins ray {len(found)} times"
    return found[0]


def image_tag(image: str) -> str:
    """Return the tag of an image name; empty where there is none."""
    return image.rpartition("/")[2].partition(":")[2]


def strings(value: Any) -> Iterator[str]:
    """Yield every key and scalar of nested YAML as text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    else:
        yield str(value)
