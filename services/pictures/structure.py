"""Bounds on the parts of a picture file: chunks, segments and scans.

Pillow and its libraries take time that grows with the parts of a file, and not with its pixels:
seconds for a million empty chunks, minutes for a thousand EXIF segments or a few hundred scans.
So the parts are counted first, in time that grows with the file's bytes.
"""

import re
from collections.abc import Iterator

from services.pictures.errors import PictureError

MAX_PARTS = 2**14  # a PNG of 64 MiB in chunks of 4 KiB; most writers take 8 KiB or more
MAX_METADATA_BYTES = 2**23  # profiles, EXIF, XMP, comments; a profile for print may take 3 MiB
MAX_SCANS = 100  # of a JPEG; a progressive one has 10 by default

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"fdAT", b"IEND")
_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
_SCAN, _END = 0xDA, 0xD9
_METADATA = (*range(0xE0, 0xF0), 0xFE)  # APP0 to APP15, and comments
# A marker that is no stuffed zero, restart marker or fill byte.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")


def check_structure(content: bytes) -> None:
    """Checks the numbers of parts of a PNG, JPEG or WebP file; any other file passes.

    A broken file passes as well: the decoder finds what is wrong with it.

    Raises:
        PictureError: the file has too many parts, scans, or bytes that are not of the picture.
    """
    if content.startswith(_PNG):
        parts = _chunks(content, len(_PNG), big_endian=True)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        parts = _chunks(content, 12, big_endian=False)
    elif content.startswith(_JPEG):
        parts = _segments(content)
    else:
        return
    metadata = scans = 0
    for count, (scan, metadata_bytes) in enumerate(parts, 1):
        metadata += metadata_bytes
        scans += scan
        _check("chunks or segments", count, MAX_PARTS)
        _check("bytes of profiles, EXIF, XMP, texts and comments", metadata, MAX_METADATA_BYTES)
        _check("scans", scans, MAX_SCANS)


def _check(what: str, got: int, limit: int) -> None:
    if got > limit:
        advice = "save it anew, not progressive and without metadata"
        raise PictureError(f"at most {limit} {what}", "a file with more", advice)


def _chunks(content: bytes, start: int, *, big_endian: bool) -> Iterator[tuple[bool, int]]:
    """Yields for each chunk of a PNG or WebP file: no scan, and its bytes if it is metadata.

    Source: PNG specification, section 5.3; RFC 9649, section 2.3.
    """
    while start + 8 <= len(content):
        first, second = content[start : start + 4], content[start + 4 : start + 8]
        if big_endian:
            length, kind = int.from_bytes(first), second
            start += 12 + length
            metadata = kind not in _PNG_PIXELS
        else:
            length, kind = int.from_bytes(second, "little"), first
            start += 8 + length + length % 2
            metadata = kind not in _WEBP_PIXELS
        yield False, length if metadata else 0
        if kind == b"IEND":
            return


def _segments(content: bytes) -> Iterator[tuple[bool, int]]:
    """Yields for each segment of a JPEG: whether it begins a scan, and its bytes of metadata.

    Source: ITU-T T.81, section B.1.1.
    """
    position = len(_JPEG)
    while (found := _MARKER.search(content, position)) is not None:
        marker, position = content[found.end() - 1], found.end()
        if marker == _END:
            return
        length = int.from_bytes(content[position : position + 2])
        if marker != 0x01 and marker != 0xD8:  # those have no length
            position += length
        yield marker == _SCAN, length if marker in _METADATA else 0
