"""The CA certificates that the fetcher trusts."""

import functools
import ssl

from corgi.settings.errors import SettingsError


@functools.cache
def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return the process's TLS context, which is built once: building one costs more than decoding an image.

    Raises:
        SettingsError: the file of additional CA certificates cannot be read.

    """
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is a subclass
            raise SettingsError(
                f"download.ca_file={ca_file!r} has no CA certificates that can be read ({error.strerror or error}); nothing was fetched; name a PEM file that every node can read"
            ) from error
    return context
