"""Fifty files built to exhaust whoever opens them, and what each must be refused for."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import ImageCms

from corgi.tables.schema import Reason
from tests.support.pictures import encoded, jpeg_lie, png_bomb, scene

SIDES = (6_000, 12_000, 20_000, 30_000, 65_000)
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@dataclass(frozen=True)
class Bomb:
    """A hostile body, named, with the reasons that may refuse it."""

    name: str
    data: bytes
    reasons: tuple[Reason, ...]


def bombs() -> list[Bomb]:
    """Return fifty bombs of every kind."""
    made = [*_sizes(), *_webps(), *_animations(), *_profiles(), *_loops(), *_structures()]
    assert len(made) == len({bomb.name for bomb in made}) == 50, len(made)
    return made


def _sizes() -> Iterator[Bomb]:
    large = (Reason.TOO_MANY_PIXELS,)
    for side in (6_000, 9_000):
        yield Bomb(f"png grey {side}", png_bomb(side), large)
    for side in SIDES:
        yield Bomb(f"png lie {side}", png_lie(side, side), large)
        yield Bomb(f"jpeg lie {side}", jpeg_lie(side, side), large)
        yield Bomb(f"gif lie {side}", _gif(side, side), large)
    yield Bomb("png lie within the limit", png_lie(5_000, 5_000), large)
    yield Bomb("jpeg lie within the limit", jpeg_lie(5_000, 5_000), large)
    yield Bomb("png thin", png_lie(100_000, 2), (Reason.ASPECT_RATIO,))
    yield Bomb("jpeg thin", jpeg_lie(60_000, 1), (Reason.ASPECT_RATIO,))
    yield Bomb("gif with a frame larger than its screen", _gif(8, 8, frame=60_000), large)
    yield Bomb("png of no size", png_lie(0, 0), (Reason.DECODE_FAILED,))


def _webps() -> Iterator[Bomb]:
    for kind in (b"VP8X", b"VP8L", b"VP8 "):
        yield Bomb(f"webp lie {kind.decode()}", webp_lie(kind, 16_000), (Reason.TOO_MANY_PIXELS,))
    small = encoded(scene(1), "WEBP", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00")
    inner = bytearray(small)
    place = inner.index(b"VP8 ") + 8 + 6
    inner[place : place + 4] = struct.pack("<HH", 16_000, 16_000)
    yield Bomb("webp picture larger than its canvas", bytes(inner), (Reason.DECODE_FAILED,))
    yield Bomb("webp cut", small[:60], (Reason.DECODE_FAILED,))


def _animations() -> Iterator[Bomb]:
    for frames in (2_000, 2**31 - 1):
        control = png_chunk(b"acTL", struct.pack(">II", frames, 0))
        yield Bomb(f"apng {frames} frames", _with_chunk(control), (Reason.TOO_MANY_FRAMES,))
    block = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    yield Bomb(
        "gif of 5,000 frames",
        b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + block * 5_000,
        (Reason.TOO_MANY_FRAMES,),
    )
    canvas = struct.pack("<B3x", 2) + (99).to_bytes(3, "little") * 2
    frame = _riff(b"ANMF", bytes(16))
    yield Bomb(
        "webp of 5,000 frames", _webp(_riff(b"VP8X", canvas) + frame * 5_000), (Reason.TOO_MANY_FRAMES,)
    )


def _profiles() -> Iterator[Bomb]:
    bad = (Reason.BAD_METADATA,)
    for mebibytes in (5, 64, 256):
        yield Bomb(
            f"png profile of {mebibytes} MiB",
            _with_chunk(png_chunk(b"iCCP", b"x\x00\x00" + _zeros(mebibytes))),
            bad,
        )
    deep = bytearray(_SRGB)
    deep[128:132] = (2**31).to_bytes(4)
    for name in ("PNG", "JPEG", "WEBP"):
        yield Bomb(f"{name} profile of many tags", encoded(scene(1), name, icc_profile=bytes(deep)), bad)
    part = b"\xff\xe2" + (65_535).to_bytes(2) + b"ICC_PROFILE\x00"
    parts = b"".join(part + bytes([number, 255]) + bytes(65_519) for number in range(1, 256))
    jpeg = encoded(scene(1))
    yield Bomb("jpeg profile of 16 MB", jpeg[:2] + parts + jpeg[2:], bad)


def _loops() -> Iterator[Bomb]:
    bad = (Reason.BAD_METADATA,)
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    itself = b"II*\x00\x08\x00\x00\x00\x01\x00" + entry + bytes(4)
    chained = b"II*\x00\x08\x00\x00\x00\x00\x00" + (8).to_bytes(4, "little")
    many = b"II*\x00\x08\x00\x00\x00\x40\x00" + b"".join(
        struct.pack("<HHII", 0x014A, 4, 1, 900 + 6 * number) for number in range(64)
    )
    for name, exif in (("itself", itself), ("chain", chained), ("many", many + bytes(900))):
        yield Bomb(f"exif loop {name} jpeg", encoded(scene(1), "JPEG", exif=b"Exif\x00\x00" + exif), bad)
        yield Bomb(f"exif loop {name} webp", _exif_webp(exif), bad)
    yield Bomb("exif loop png", _with_chunk(png_chunk(b"eXIf", itself)), bad)


def _structures() -> Iterator[Bomb]:
    cut = (Reason.DECODE_FAILED,)
    yield Bomb(
        "png of a million chunks", encoded(scene(1), "PNG")[:33] + png_chunk(b"teSt", b"") * 1_000_000, cut
    )
    head = b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0)
    yield Bomb("gif of a million blocks", head + b"\x21\xfe\x00" * 1_000_000, cut)
    yield Bomb("jpeg of a million segments", b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1_000_000, cut)
    empty = encoded(scene(1), "PNG")[:33] + png_chunk(b"IDAT", b"") * 1_000_000
    yield Bomb("png of a million empty parts of its pixels", empty, cut)


def png_lie(width: int, height: int) -> bytes:
    """Return a small PNG whose header claims another size."""
    data = encoded(scene(0), "PNG")
    header = struct.pack(">II", width, height) + data[24:29]
    return data[:8] + png_chunk(b"IHDR", header) + data[33:]


def webp_lie(kind: bytes, side: int) -> bytes:
    """Return a WebP header of a kind that claims a size, without a picture behind it."""
    if kind == b"VP8X":
        return _webp(_riff(kind, bytes(4) + (side - 1).to_bytes(3, "little") * 2))
    if kind == b"VP8L":
        return _webp(_riff(kind, b"\x2f" + (side - 1 | (side - 1) << 14).to_bytes(4, "little") + bytes(20)))
    return _webp(_riff(kind, b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", side, side) + bytes(20)))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return one PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def stuffed(num_mebibytes: int) -> dict[str, bytes]:
    """Return honest pictures of every format, each with texts of this size that no reader needs."""
    size = num_mebibytes * 2**20
    zeros, plain = _zeros(num_mebibytes), b"x" * size
    chunks = {
        "tEXt": b"parameters\x00" + plain,
        "zTXt": b"parameters\x00\x00" + zeros,
        "iTXt": b"parameters\x00\x00\x00\x00\x00" + plain,
        "packed iTXt": b"parameters\x00\x01\x00\x00\x00" + zeros,
    }
    texts = {name: png_chunk(name[-4:].encode(), body) for name, body in chunks.items()}
    texts["a text named as a setting"] = png_chunk(b"tEXt", b"transparency\x00" + plain)
    png, jpeg, cmyk = (encoded(scene(1), "PNG"), encoded(scene(1)), encoded(scene(1).convert("CMYK")))
    end = len(png) - 12
    found = {f"png {name}": png[:33] + chunk + png[33:] for name, chunk in texts.items()}
    found |= {f"png {name} behind the pixels": png[:end] + chunk + png[end:] for name, chunk in texts.items()}
    for marker in (0xE1, 0xE4, 0xED, 0xFE):
        segments = (b"\xff" + bytes([marker]) + (65_535).to_bytes(2) + bytes(65_533)) * (size // 65_533 + 1)
        found[f"jpeg {marker:02x}"] = jpeg[:2] + segments + jpeg[2:]
        found[f"cmyk jpeg {marker:02x}"] = cmyk[:2] + segments + cmyk[2:]
    for kind in ("exif", "xmp"):
        found[f"webp {kind}"] = encoded(scene(1), "WEBP", **{kind: plain})
        found[f"clear webp {kind}"] = encoded(scene(1).convert("RGBA"), "WEBP", **{kind: plain})
    comment = (b"\xff" + b"x" * 255) * (size // 256)
    gif = encoded(scene(1), "GIF")
    table = 13 + (3 << ((gif[10] & 7) + 1))
    found["gif comment"] = gif[:table] + b"\x21\xfe" + comment + b"\x00" + gif[table:]
    return found


def _with_chunk(chunk: bytes) -> bytes:
    data = encoded(scene(1), "PNG")
    return data[:33] + chunk + data[33:]


def _exif_webp(exif: bytes) -> bytes:
    return encoded(scene(1), "WEBP", exif=b"Exif\x00\x00" + exif)


def _gif(width: int, height: int, frame: int = 1) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    return head + b"\x2c" + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02\x44\x01\x00;"


def _webp(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)


def _zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(mebibytes)), packer.flush()])
