"""The target of a redirect (RFC 3986, 5.2), with every byte as the server wrote it. No network access."""

from urllib.parse import urlsplit

from yarl import URL

from corgi.fetching.address import UrlRefusedError, parse_url
from corgi.sources.identity import escaped


def redirected(url: URL, location: str) -> URL:
    """Return the target of a response's Location, relative to the URL that was requested.

    Raises:
        UrlRefusedError: there is no target, or it is not a web URL.

    """
    reference = escaped(location.strip()).partition("#")[0]
    try:
        parts = urlsplit(reference)
    except ValueError:
        raise UrlRefusedError("no usable Location") from None
    if not location or (parts.scheme and not parts.netloc):
        raise UrlRefusedError("no usable Location")
    return parse_url(reference if parts.scheme else _joined(url, reference))


def _joined(url: URL, reference: str) -> str:
    """Return a reference without scheme as an absolute URL."""
    if reference.startswith("//"):
        return f"{url.scheme}:{reference}"
    site, target = f"{url.scheme}://{url.raw_authority}", url.raw_path_qs
    path = target.partition("?")[0]
    if not reference:
        return site + target
    if reference.startswith("?"):
        return site + path + reference
    folder = "" if reference.startswith("/") else path.rpartition("/")[0] + "/"
    merged, mark, query = (folder + reference).partition("?")
    return site + _without_dots(merged) + mark + query


def _without_dots(path: str) -> str:
    """Return a path without its `.` and `..` segments (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
