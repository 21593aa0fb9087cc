"""Certificates are read once, and a file that holds none is one line."""

from pathlib import Path

import pytest

from corgi.fetching.tls import tls_context
from corgi.settings.errors import SettingsError


def test_a_further_ca_file_must_be_one(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    for path in (wrong, tmp_path / "absent.pem"):
        with pytest.raises(SettingsError, match=r"download\.ca_file") as caught:
            tls_context(str(path))
        assert "\n" not in str(caught.value)
    assert tls_context(None) is tls_context(None)
