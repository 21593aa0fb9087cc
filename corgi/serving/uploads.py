"""Pictures that clients send: untrusted bytes, decoded in the same bounded child processes as downloaded pictures."""

from PIL import Image
from pydantic import ByteSize

from corgi.imaging.decode import decode_stored
from corgi.imaging.pool import DecoderPool
from corgi.serving.errors import ApiError
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection

UPLOAD_SIDE_PX = 256
"""Shorter side to which an upload is decoded, px: at least the input of CLIP models with 224 px."""
MAX_UPLOAD_PIXELS = 2**25


class Uploads:
    """Decoder processes for uploads; they start with the first upload."""

    def __init__(self, max_bytes: int, side: int = UPLOAD_SIDE_PX) -> None:
        """Decode uploads to pictures whose shorter side has `side` px."""
        self._pool = DecoderPool(
            DownloadSettings(
                image_size=side,
                encode_format="png",
                max_bytes=ByteSize(max_bytes),
                max_pixels=MAX_UPLOAD_PIXELS,
                decode_processes=1,
            )
        )

    async def picture(self, data: bytes) -> Image.Image:
        """Return an upload as an RGB picture.

        Raises:
            ApiError: it cannot be decoded as a picture within the limits.

        """
        result = await self._pool.decode(data)
        if isinstance(result, Rejection):
            raise ApiError(400, f"image: {result.reason.text}", param="image", code=result.reason.value)
        return decode_stored(result.image)

    def close(self) -> None:
        """Stop the decoder processes."""
        self._pool.close()
