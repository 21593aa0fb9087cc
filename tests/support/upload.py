"""What `ray job submit --working-dir .` uploads of a folder, as Ray itself packs it."""

import zipfile
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

MAX_UPLOAD_BYTES = 8 * 2**20
"""Code, recipes and tests were 5.3 MB in November 2026. Ray uploads them uncompressed."""


def packed(folder: Path, archive: Path) -> list[str]:
    """Pack a folder into a new file; return the names in it."""
    create_package(str(folder), archive, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(archive) as package:
        return package.namelist()
