"""Promise 25, a sample: no body, however broken, escapes as anything but a picture or a reason."""

import io
from collections.abc import Callable

import pytest
from PIL import Image

from corgi.imaging.decode import StoredImage, decode
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from tests.support.mutants import mutant, seeds
from tests.support.pictures import encoded, scene

SETTINGS = DownloadSettings(image_size=16, max_pixels=100_000)


def test_every_seed_is_a_picture() -> None:
    assert all(isinstance(decode(body, SETTINGS), StoredImage) for body in seeds())


def test_mutants_are_pictures_or_reasons(promise: Callable[[int, str], None]) -> None:
    found = [decode(mutant(number), SETTINGS) for number in range(500)]
    assert {type(one) for one in found} == {StoredImage, Rejection}
    for one in found:
        if isinstance(one, Rejection):
            assert not any(letter.isdigit() for letter in one.detail)
        else:
            with Image.open(io.BytesIO(one.image), formats=("JPEG",)) as stored:
                assert stored.size == (one.width, one.height)
    promise(25, f"sample: {len(found)} mutants, 0 escapes")


ARCHIVE = b"PK\x03\x04 SECRET archive PK\x05\x06"
PAGE = b"<html><script>SECRET</script></html>"


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("rider", [ARCHIVE, PAGE, b"%PDF-1.7 SECRET", b"#!/bin/sh SECRET"])
def test_polyglots_lose_their_second_half(format_name: str, rider: bytes) -> None:
    found = decode(encoded(scene(1), format_name) + rider, SETTINGS)
    assert isinstance(found, StoredImage)
    assert b"SECRET" not in found.image
    assert found.format == format_name


def test_a_body_is_what_its_first_bytes_say() -> None:
    for other in (PAGE, ARCHIVE, b"%PDF-1.7"):
        assert isinstance(decode(other + encoded(scene(1)), SETTINGS), Rejection)
