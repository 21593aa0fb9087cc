"""Every rule that can reject a row of the plan, in the order of checking.

Before the request: the rules about captions. From the header: format, frames and size. After decoding: the size again, because only
Pillow can read it for some formats. From the content: the blocked hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from corgi.download.rules import check_captions, check_image, rules_of
from corgi.imaging.decode import StoredImage
from corgi.imaging.header import Header, check_header
from corgi.planning.blocklist import HashBlocklist
from corgi.settings.data import DownloadSettings, FilterSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason


@dataclass(frozen=True)
class RowChecks:
    """The rules of one download, with one method per moment of checking."""

    settings: DownloadSettings
    blocked: HashBlocklist = field(default_factory=HashBlocklist)

    @cached_property
    def rules(self) -> FilterSettings:
        """The filter's rules with the preset resolved."""
        return rules_of(self.settings.filter)

    def before_request(self, captions: Sequence[str]) -> Rejection | None:
        """Return why a row with these captions is not requested, or None."""
        return check_captions(captions, self.rules)

    def by_header(self, data: bytes) -> Header | Rejection | None:
        """Return the header of a body, or why it is not decoded; None if only Pillow can read the header."""
        header = check_header(data, self.settings)
        if not isinstance(header, Header):
            return header
        return check_image(header.width, header.height, len(data), self.rules) or header

    def after_decoding(self, image: StoredImage) -> StoredImage | Rejection:
        """Return an image that is kept, or why it is not."""
        rejection = self._by_size(image) or self._by_content(image)
        if rejection is None:
            return image
        return replace(rejection, http_status=image.http_status, num_bytes=image.num_bytes)

    def _by_size(self, image: StoredImage) -> Rejection | None:
        return check_image(image.original_width, image.original_height, image.num_bytes, self.rules)

    def _by_content(self, image: StoredImage) -> Rejection | None:
        hashes = [f"sha256:{image.sha256}", f"phash:{image.phash}"]
        if self.blocked.kinds and self.blocked.holds(hashes).any():
            return Rejection(Reason.BLOCKED_HASH, "listed in block_hashes")
        return None
