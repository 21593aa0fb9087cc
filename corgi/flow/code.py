"""Which code made a table: a digest of the sources, and git's commit where there is one."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]


@cache
def code_digest() -> str:
    """Return a digest of every Python file under corgi/ and pipelines/."""
    total = hashlib.blake2b(digest_size=16)
    for folder in ("corgi", "pipelines"):
        for path in sorted((_HOME / folder).rglob("*.py")):
            total.update(str(path.relative_to(_HOME)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


@cache
def git_commit() -> str | None:
    """Return the checked-out commit, marked when files differ from it; None outside a clone."""
    if not (_HOME / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=_HOME, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=_HOME,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} with local changes" if dirty else commit
