"""Where a redirect leads: byte for byte what the server wrote, and the place that RFC 3986 names."""

from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.fetching.address import UrlRefusedError, parse_url
from corgi.fetching.redirect import redirected

BASE = "http://a.test:81/b/c%2C/d?q=1"


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("http://c.test/x%2Cy;?u=http%3A%2F%2Fd%2F&s=a%2Bb%3D", "http://c.test/x%2Cy;?u=http%3A%2F%2Fd%2F&s=a%2Bb%3D"),
        ("HTTP://C.test/%7Eu.jpg?", "http://c.test/%7Eu.jpg?"),
        ("//c.test/x|y", "http://c.test/x|y"),
        ("/x/./y/../%27?a[]=b", "http://a.test:81/x/%27?a[]=b"),
        ("../x%3A", "http://a.test:81/b/x%3A"),
        ("..", "http://a.test:81/b/"),
        ("x?", "http://a.test:81/b/c%2C/x?"),
        ("?r=%20", "http://a.test:81/b/c%2C/d?r=%20"),
        ("#part", "http://a.test:81/b/c%2C/d?q=1"),
        (" /a b#part", "http://a.test:81/a%20b"),
        ("/caf\udce9", "http://a.test:81/caf%E9"),
        ("/café", "http://a.test:81/caf%C3%A9"),
    ],
)  # fmt: skip
def test_a_location_is_kept_byte_for_byte(location: str, place: str) -> None:
    assert str(redirected(parse_url(BASE), location)) == place


@pytest.mark.parametrize(
    "location",
    ["", "http:", "http:x", "file:///etc/passwd", "data:,", "http://u:p@c.test/", "http://[", "http://c.test\\@d/"],
)  # fmt: skip
def test_a_location_that_is_no_web_url_is_refused(location: str) -> None:
    with pytest.raises(UrlRefusedError):
        redirected(parse_url(BASE), location)


@given(st.from_regex(r"/?(\.\.?/|[a-z%]{1,3}/)*[a-z.]{1,3}(\?[a-z/.]{1,4})?", fullmatch=True))
def test_law_a_reference_leads_where_the_standard_library_says(reference: str) -> None:
    assert str(redirected(parse_url(BASE), reference)) == urljoin(BASE, reference)
