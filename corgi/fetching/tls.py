"""The certificates that a fetch trusts."""

import functools
import ssl

from corgi.settings.errors import SettingsError


@functools.cache
def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return the process's one TLS context: building one costs more than decoding an image.

    Raises:
        SettingsError: the file of further CA certificates cannot be read.

    """
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # an ssl.SSLError is one
            raise SettingsError(
                f"download.ca_file={ca_file!r} holds no CA certificates that can be read ({error.strerror or error}); nothing was fetched; name a PEM file every node can read"
            ) from error
    return context
