"""Where the examples of one tar or folder lie: arrays of offsets, some 60 bytes an example."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from training.data.captioned.errors import DataError, UnusableExample

ABSENT = -1  # offset of a picture or a caption that an example lacks
_ENTRY = np.dtype(
    [
        ("offset", np.int64),
        ("size", np.int64),
        ("caption_offset", np.int64),
        ("caption_size", np.int64),
        ("caption_is_json", np.bool_),
    ]
)


class Entry(NamedTuple):
    """Where one example lies.

    Attributes:
        offset: Of its picture in bytes; `ABSENT` if it has none.
        size: Of its picture in bytes.
        caption_offset: Of its caption in bytes; `ABSENT` if it has none.
        caption_size: Of its caption in bytes.
        caption_is_json: Whether the caption is a field of a JSON object, else plain text.
    """

    offset: int = ABSENT
    size: int = 0
    caption_offset: int = ABSENT
    caption_size: int = 0
    caption_is_json: bool = False


@dataclass(frozen=True)
class Index:
    """Keys and entries of examples, in order.

    Attributes:
        keys: All keys one after another, in UTF-8.
        key_ends: Where each key ends.
        entries: An array of `Entry`.
    """

    keys: UInt8[np.ndarray, " K"]
    key_ends: Int64[np.ndarray, " n"]
    entries: Shaped[np.ndarray, " n"]

    @classmethod
    def of(cls, examples: Iterable[tuple[str, Entry]]) -> "Index":
        """Packs the keys and entries of examples."""
        keys, ends, entries = bytearray(), [], []
        for key, entry in examples:
            keys += key.encode("utf-8", "surrogateescape")
            ends.append(len(keys))
            entries.append(tuple(entry))
        return cls(
            np.frombuffer(bytes(keys), np.uint8),
            np.array(ends, np.int64),
            np.array(entries, _ENTRY),
        )

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.entries)

    def key(self, index: int) -> str:
        """Returns the key of an example."""
        start = int(self.key_ends[index - 1]) if index else 0
        key = self.keys[start : int(self.key_ends[index])].tobytes()
        return key.decode("utf-8", "surrogateescape")

    def entry(self, index: int) -> Entry:
        """Returns where an example lies."""
        return Entry(*self.entries[index].item())

    def digest(self) -> str:
        """Returns a name of what is indexed: of other keys, offsets or sizes it is another."""
        digest = hashlib.sha256(self.keys.tobytes())
        digest.update(self.entries.tobytes())
        return digest.hexdigest()[:16]

    def save(self, file: Path) -> None:
        """Writes it as .npz."""
        with file.open("wb") as stream:
            np.savez(stream, keys=self.keys, key_ends=self.key_ends, entries=self.entries)

    @classmethod
    def load(cls, file: Path) -> "Index":
        """Reads what `save` wrote.

        Raises:
            DataError: the file is damaged.
        """
        try:
            with np.load(file) as saved:
                return cls(saved["keys"], saved["key_ends"], saved["entries"])
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{file} is damaged: delete it, and it is made again: {error}"
            ) from error


def caption_text(content: bytes, *, field: str | None) -> str:
    """Decodes a caption.

    Args:
        content: Its bytes.
        field: Its name in a JSON object; None for plain text.

    Raises:
        UnusableExample: it is empty, null, no UTF-8, half of a surrogate pair, or the object lacks
            it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableExample(f"the caption is no UTF-8: {error}") from error
    if field is not None:
        text = _field(text, field)
    if not text.strip():
        raise UnusableExample("the caption is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON may escape half of an emoji: "\\ud83e"
        raise UnusableExample("the caption has half of a surrogate pair") from error
    return text.strip()


def _field(text: str, field: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableExample(f"the JSON of the caption cannot be read: {error}") from error
    if not isinstance(found, dict) or field not in found:
        names = ", ".join(found) if isinstance(found, dict) else type(found).__name__
        raise UnusableExample(f"expected a caption in the JSON field {field!r}, got {names:.80}")
    value = found[field]
    if not isinstance(value, str):
        raise UnusableExample(f"expected a text in the JSON field {field!r}, got {value!r:.80}")
    return value
