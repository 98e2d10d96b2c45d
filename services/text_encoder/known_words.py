"""Words of the captions that an encoder was trained on, to warn of prompts that use others.

An encoder trained on few words embeds any other word as its letters, which the transformers never
saw: what they draw for it is chance. An encoder pretrained on the open web has no such file.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from services.runtime.checkpoints.documents import read_object
from services.runtime.checkpoints.errors import CheckpointMismatch

KNOWN_WORDS_FILE = "known_words.json"
MAX_WORDS = 4096  # captions of more words are open English: a list would tell a reader nothing
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


@dataclass(frozen=True, kw_only=True)
class KnownWords:
    """Words of the training captions.

    Attributes:
        words: Every word, in lower case.
        subjects: What captions name, by kind, such as {"objects": ("ant", "lady beetle")}.
    """

    words: frozenset[str]
    subjects: Mapping[str, tuple[str, ...]]

    def unknown(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Returns the words of the texts that no caption had, in order, each once."""
        found = dict.fromkeys(word for text in texts for word in words_of(text))
        return tuple(word for word in found if word not in self.words)

    def warning(self, unknown: Sequence[str]) -> str:
        """Returns sentences that name unknown words and list the subjects."""
        named = ", ".join(f'"{word}"' for word in unknown)
        known = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in self.subjects.items())
        return (
            f"unknown words: no caption of the training had {named}, so what the pictures show "
            f"for them is chance; this checkpoint knows "
            f"{known or f'{len(self.words)} words, which its {KNOWN_WORDS_FILE} lists'}"
        )

    def joined(self, other: "KnownWords") -> "KnownWords":
        """Returns the words of both, of an encoder that was trained on one and then the other."""
        subjects = {
            kind: tuple(
                dict.fromkeys([*self.subjects.get(kind, ()), *other.subjects.get(kind, ())])
            )
            for kind in {**self.subjects, **other.subjects}
        }
        return KnownWords(words=self.words | other.words, subjects=subjects)

    def save(self, file: Path) -> None:
        """Writes the words as JSON."""
        content = {"subjects": dict(self.subjects), "words": sorted(self.words)}
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def from_file(cls, file: Path) -> "KnownWords":
        """Reads the words.

        Raises:
            CheckpointMismatch: the file has another form.
        """
        content = read_object(file)
        subjects, words = content.get("subjects"), content.get("words")
        if (
            not isinstance(subjects, dict)
            or not all(map(_are_texts, subjects.values()))
            or not _are_texts(words)
        ):
            raise CheckpointMismatch(
                f"{file} is no list of known words: expected lists of texts, `words` and those "
                "in `subjects`"
            )
        return cls(
            words=frozenset(words),
            subjects={kind: tuple(names) for kind, names in subjects.items()},
        )


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case: runs of letters and digits."""
    return _WORD.findall(text.casefold().replace("\u2019", "'"))


def known_words(
    captions: Iterable[str], subjects: Mapping[str, Sequence[str]], *, examples: int = 20_000
) -> KnownWords | None:
    """Collects the words of captions and subjects; None if they are more than `MAX_WORDS`.

    Args:
        captions: Captions of the training; only the first `examples` are read.
        subjects: What captions name, by kind.
        examples: Number of captions to read.
    """
    words = {word for names in subjects.values() for name in names for word in words_of(name)}
    for caption in islice(captions, examples):
        words.update(words_of(caption))
        if len(words) > MAX_WORDS:
            return None
    return KnownWords(
        words=frozenset(words), subjects={kind: tuple(names) for kind, names in subjects.items()}
    )
