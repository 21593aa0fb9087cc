import base64
import dataclasses
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from corgi.demo.npm_packages import NpmPackage, fetch, read_json
from corgi.settings.errors import InputError
from tests.support.ports import free_port

pytestmark = pytest.mark.slow


def packed(folder: Path, **members: object) -> NpmPackage:
    """Write a tarball as npm pack does and return the package that pins it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, value in members.items():
            body = json.dumps(value).encode()
            entry = tarfile.TarInfo(f"package/{name}.json")
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(made.getvalue()).digest()).decode()
    package = NpmPackage("@corgi-test/icons", "1.2.3", integrity)
    (folder / package.tarball).write_bytes(made.getvalue())
    return package


def test_a_tarball_that_is_there_is_read_and_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{free_port()}")
    package = packed(tmp_path, icons={"icons": {}})
    assert package.tarball == "corgi-test-icons-1.2.3.tgz"
    assert read_json(fetch(package, tmp_path), "icons.json") == {"icons": {}}


def test_another_tarball_than_the_pinned_is_one_line_and_is_removed(tmp_path):
    package = packed(tmp_path, icons={})
    other = dataclasses.replace(package, integrity="sha512-" + "A" * 88)
    with pytest.raises(InputError, match=r"has integrity .* expected sha512-AAAA.*it was removed") as caught:
        fetch(other, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / package.tarball).exists()


def test_a_registry_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{free_port()}")
    package = NpmPackage("@corgi-test/icons", "1.2.3", "sha512-" + "A" * 88)
    with pytest.raises(InputError, match=r"cannot be fetched: .*ECONNREFUSED.*run again") as caught:
        fetch(package, tmp_path / "npm")
    assert "\n" not in str(caught.value)


def test_a_package_without_the_file_is_one_line(tmp_path):
    package = packed(tmp_path, info={})
    with pytest.raises(InputError, match=r"has no icons\.json; nothing was drawn"):
        read_json(fetch(package, tmp_path), "icons.json")
