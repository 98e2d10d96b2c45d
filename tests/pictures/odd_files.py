"""Picture files of many parts."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def saved(kind: str, **options: Any) -> bytes:
    drawn = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, kind, **options)
    return file.getvalue()


def png_of(chunks: int, size: int = 0) -> bytes:
    """A PNG with further chunks, which no reader knows."""
    whole, content = saved("PNG"), bytes(size)
    chunk = b"abCd" + content
    chunk = struct.pack(">I", size) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return whole[:33] + chunk * chunks + whole[33:]


def webp_of(chunks: int) -> bytes:
    content = saved("WEBP")[12:] + struct.pack("<4sI", b"abcd", 0) * chunks
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WEBP" + content


def jpeg_of(segments: int, size: int) -> bytes:
    """A JPEG with EXIF in many segments."""
    whole = saved("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", size + 2) + b"Exif\0\0".ljust(size, b"\0")
    return whole[:2] + segment * segments + whole[2:]


def jpeg_of_scans(more: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    return _repeated(saved("JPEG", progressive=True), more)


def _repeated(whole: bytes, more: int) -> bytes:
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * more + whole[-2:]


def slow_jpeg() -> bytes:
    """A JPEG of 80 scans of many pixels, which takes seconds to decode."""
    file = io.BytesIO()
    Image.new("L", (4000, 4000), 128).save(file, "JPEG", progressive=True)
    return _repeated(file.getvalue(), 70)


def slower_jpeg() -> bytes:
    """A JPEG of 80 scans of noise, 47 MiB, which takes twice as long."""
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", progressive=True)
    return _repeated(file.getvalue(), 70)
