"""The img2dataset engine: the library really called, every row accounted for."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from corgi.download import img2dataset_engine
from corgi.download.img2dataset_engine import Img2datasetEngine, rejection_of
from corgi.download.native_engine import NativeEngine
from corgi.download.planned import Outcome
from corgi.download.stage import new_engine
from corgi.imaging.decode import StoredImage, decode, decode_stored
from corgi.settings.data import DownloadSettings
from corgi.settings.errors import ClusterError
from corgi.sources.identity import canonical_url, request_url
from corgi.tables.schema import Reason
from tests.support.fault_server import FaultServer
from tests.support.pictures import encoded, scene
from tests.support.results import reason_of

pytestmark = pytest.mark.slow

HOST = "pictures.test"
REASONS: dict[str, Reason | None] = {
    "/ok/1.jpg": None,
    "/ok/2.png": None,
    "/ok/3.webp": None,
    "/once/503/4.jpg": None,
    "/status/404": Reason.HTTP_STATUS,
    "/noai": Reason.OPTED_OUT,
    "/wrongtype": Reason.DECODE_FAILED,
    "/short": Reason.SHORT_BODY,
    "/bomb/thin": Reason.ASPECT_RATIO,
    "/halfclose": Reason.CONNECTION,
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def settings_for(server: FaultServer, **changes: Any) -> DownloadSettings:
    values = {
        "engine": "img2dataset",
        "trust_list": True,
        "image_size": 32,
        "timeout_s": 20,
        "retries": 1,
        "connections": 4,
        "resolve": [f"{HOST}:80={server.address}"],
        "allow_private": [server.address],
        **changes,
    }
    return DownloadSettings.model_validate(values)


CLEAN = [
    *(f"http://{HOST}/ok/{seed}.{('jpg', 'png', 'webp')[seed % 3]}?clean" for seed in range(40)),
    *(f"http://{HOST}/ok/{seed}.jpg?odd" if seed % 2 else f"http://{HOST}/gone/{seed}" for seed in range(10)),
]
HOSTILE = [*(f"http://{HOST}{path}" for path in REASONS), "file:///etc/passwd"]
SIGNED = {
    "/signed/a%2Cb.jpg": None,
    "/signed/a%3Ab%40c%2fd%7E%27.jpg": None,
    "/signed/a,b'(c)~|[d]{e}^`\"<>.jpg": None,
    "/signed/q.jpg?u=http%3A%2F%2Fcdn%2Fx.jpg&s=a%2Bb%3D": None,
    "/signed/q.jpg?a[]=1+2|3&;": None,
    "/signed/q.jpg?": None,
    "/signed/x/../y/./z;": None,
    "/signed//100%natural\\.jpg": None,
    "/signed/a b.jpg?c d": "/signed/a%20b.jpg?c%20d",
    "/signed/写真.jpg?é#part": "/signed/%E5%86%99%E7%9C%9F.jpg?%C3%A9",
}
"""Listed targets, and the bytes to be asked for where they are others."""
TARGETS = {listed if asked is None else asked for listed, asked in SIGNED.items()}
JUMPS = [  # a Location's dots are resolved
    f"/redirect-to?u={quote(quote(target, safe=''), safe='')}"
    for target in sorted(TARGETS)
    if "/../" not in target
]
SIGNED_URLS = [f"http://{HOST}{target}" for target in [*SIGNED, *JUMPS]]
Outcomes = dict[str, Outcome]


@pytest.fixture(scope="module")
def both(server: FaultServer) -> tuple[Outcomes, Outcomes]:
    """Return the library's outcomes and ours, by URL, of one list: the library takes long to start."""
    listed = [*HOSTILE, *CLEAN, *SIGNED_URLS]
    server.signed = TARGETS
    found = []
    for engine in (new_engine(settings_for(server)), NativeEngine(settings_for(server, engine="native"))):
        server.forget()
        try:
            outcomes = engine.outcomes([*HOSTILE, *CLEAN, *map(request_url, SIGNED_URLS)])
        finally:
            engine.close()
        assert len(server.requests) >= len(REASONS) + len(CLEAN)
        found.append(dict(zip(listed, outcomes, strict=True)))
    return found[0], found[1]


def test_the_library_runs_and_its_words_become_our_reasons(
    server: FaultServer, both: tuple[Outcomes, Outcomes]
) -> None:
    assert isinstance(new_engine(settings_for(server)), Img2datasetEngine)
    assert [reason_of(both[0][url]) for url in HOSTILE] == [*REASONS.values(), Reason.BAD_URL]


def test_both_engines_keep_the_same_set(both: tuple[Outcomes, Outcomes]) -> None:
    for url in [*HOSTILE, *CLEAN]:
        their, our = both[0][url], both[1][url]
        assert isinstance(their, StoredImage) == isinstance(our, StoredImage), url
        if isinstance(their, StoredImage) and isinstance(our, StoredImage):
            assert (their.width, their.height, their.sha256) == (our.width, our.height, our.sha256)
            assert decode_stored(their.image).size == (their.width, their.height)
            assert (int(their.phash, 16) ^ int(our.phash, 16)).bit_count() <= 8
    assert sum(isinstance(both[0][url], StoredImage) for url in CLEAN) == 45


def test_native_keeps_every_row_of_a_site_that_compares_request_lines_byte_for_byte(
    both: tuple[Outcomes, Outcomes],
) -> None:
    library, native = ({url for url in SIGNED_URLS if isinstance(one[url], StoredImage)} for one in both)
    assert native == set(SIGNED_URLS)
    assert library <= native
    assert any(canonical_url(url) != request_url(url) for url in library)


def test_the_library_engine_compares_sha256_only(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = decode(encoded(scene(1)), settings_for(server))
    assert isinstance(picture, StoredImage)
    found = dict.fromkeys(range(4), picture)
    monkeypatch.setattr(Img2datasetEngine, "_downloaded", lambda self, asked: found)
    expected = [None, f"sha256:{picture.sha256}", "sha256:00", "md5:00"]
    outcomes = Img2datasetEngine(settings_for(server)).outcomes(
        [f"http://{HOST}/{n}" for n in range(4)], expected
    )
    assert [reason_of(outcome) for outcome in outcomes] == [
        None,
        None,
        Reason.HASH_MISMATCH,
        Reason.HASH_MISMATCH,
    ]


def test_rows_the_library_loses_are_rejected_by_name(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(rows: Any, settings: DownloadSettings) -> Any:
        return rejection_of("timed out")

    monkeypatch.setattr(img2dataset_engine, "outcome_of", losing)
    monkeypatch.setattr(Img2datasetEngine, "_downloaded", lambda self, asked: {0: rejection_of("timed out")})
    found = Img2datasetEngine(settings_for(server)).outcomes(
        [f"http://{HOST}/ok/1.jpg", f"http://{HOST}/ok/2.jpg"]
    )
    assert [reason_of(outcome) for outcome in found] == [Reason.TIMEOUT, Reason.ENGINE]


def test_a_library_that_does_not_start_rejects_no_row(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(img2dataset_engine, "_RUN", "raise SystemExit('no such library')")
    with pytest.raises(ClusterError, match="no such library") as caught:
        Img2datasetEngine(settings_for(server)).outcomes([f"http://{HOST}/ok/1.jpg"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("HTTP Error 404: Not Found", Reason.HTTP_STATUS),
        (
            "HTTP Error 302: The HTTP server returned a redirect error that would lead to an infinite loop.",
            Reason.TOO_MANY_REDIRECTS,
        ),
        ("<urlopen error [Errno -2] Name or service not known>", Reason.DNS),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", Reason.DNS),
        ("<urlopen error [Errno 111] Connection refused>", Reason.CONNECTION),
        ("The read operation timed out", Reason.TIMEOUT),
        ("IncompleteRead(10 bytes read, 90 more expected)", Reason.SHORT_BODY),
        ("image area too large", Reason.TOO_MANY_PIXELS),
        ("aspect ratio too large", Reason.ASPECT_RATIO),
        ("something new", Reason.ENGINE),
    ],
)
def test_messages_become_reasons_without_their_numbers(message: str, reason: Reason) -> None:
    outcome = rejection_of(message)
    assert outcome.reason == reason
    assert reason == Reason.HTTP_STATUS or not any(letter.isdigit() for letter in outcome.detail)


def test_an_untrusted_list_is_not_handed_to_the_library() -> None:
    with pytest.raises(ValidationError, match="trust_list"):
        DownloadSettings(engine="img2dataset")
