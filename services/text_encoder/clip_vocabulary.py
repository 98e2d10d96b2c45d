"""CLIP's vocabulary: byte pairs of lower-case words, between a begin and an end.

Source: Radford et al. 2021, section 2.4; openai/CLIP, clip/simple_tokenizer.py;
huggingface/transformers, models/clip/tokenization_clip.py. As there, a text may contain the names
of special tokens, of which the padding's can be a plain "!".
"""

import heapq
import json
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice

import numpy as np
from jaxtyping import Bool, Int

from services.text_encoder.clip_config import ClipTextConfig
from services.text_encoder.vocabulary import PromptTooLong

FILE_NAME = "clip_vocabulary.json"
END_OF_WORD = "</w>"
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted(set(range(0x100)) - set(_PRINTED))
# The character that stands for each byte: printable ones for themselves, others from U+0100 on.
_OF_BYTE = {each: chr(each) for each in _PRINTED} | {
    each: chr(0x100 + index) for index, each in enumerate(_OTHERS)
}


@cache
def word_pattern() -> re.Pattern[str]:
    """Returns what finds contractions, runs of letters, single numbers, and runs of all else.

    Python's `re` has no class of numbers as Unicode has it, so they are listed. It takes the
    separators U+001C to U+001F for spaces, which Unicode does not.
    """
    characters = map(chr, range(sys.maxunicode))
    listed = "".join(each for each in characters if unicodedata.category(each).startswith("N"))
    numbers = re.escape(listed)
    contractions, letters = "'s|'t|'re|'ve|'m|'ll|'d", rf"[^\W_{numbers}]+"
    return re.compile(rf"{contractions}|{letters}|[{numbers}]|(?:[^\w\s]|[_\x1c-\x1f])+")


class ClipVocabulary:
    """Turns text into CLIP's ids.

    Attributes:
        model: The vocabulary as a file, as `clip_vocabulary_file` makes it.
        size: Rows that the embedding has at least.
    """

    def __init__(self, model: bytes, config: ClipTextConfig) -> None:
        """Reads the vocabulary of an encoder.

        Raises:
            ValueError: it is none of a CLIP.
        """
        self.model, self._config = model, config
        try:
            content = json.loads(model)
            self._ids = {str(token): int(number) for token, number in content["ids"].items()}
            pairs = [(str(left), str(right)) for left, right in content["merges"]]
            self.size = max(self._ids.values()) + 1
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"the vocabulary is none of a CLIP: {error!r}") from error
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._longest = max(len(token.removesuffix(END_OF_WORD)) for token in self._ids)
        special = {config.begin_id, config.end_id, config.padding_id}
        named = (re.escape(token) for token, number in self._ids.items() if number in special)
        self._special = re.compile(f"({'|'.join(named)})")

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, padded to all positions.

        The list is longer than that if the text has more tokens.

        Raises:
            PromptTooLong: the text has more characters than could fit, so that its tokens are not
                counted one by one.
        """
        most, words = self._config.maximum_length, self._words(text)
        fewest = sum(-(-len(word.encode()) // self._longest) for word in words) + 2
        if fewest > most:
            raise PromptTooLong(fewest, most)
        return self._padded([*self._text_ids(text)], most)

    def encode_batch(
        self, texts: Sequence[str], length: int
    ) -> tuple[Int[np.ndarray, "B T"], Bool[np.ndarray, "B T"], int]:
        """Encodes texts side by side; see `Vocabulary.encode_batch`. Padding is part of a text."""
        firsts = [list(islice(self._text_ids(text), length - 1)) for text in texts]
        ids = np.array([self._padded(first[: length - 2], length) for first in firsts], np.int32)
        return ids, np.ones(ids.shape, bool), sum(len(first) > length - 2 for first in firsts)

    def _text_ids(self, text: str) -> Iterator[int]:
        """Yields the ids of a text without begin, end and padding."""
        for word in self._words(text):
            for token in self._tokens(word):
                yield self._ids.get(token, self._config.end_id)

    def _padded(self, text_ids: list[int], length: int) -> list[int]:
        config = self._config
        ids = [config.begin_id, *text_ids, config.end_id]
        return ids + [config.padding_id] * (length - len(ids))

    def _words(self, text: str) -> Iterator[str]:
        """Yields the names of special tokens in a text, and the words between them."""
        for index, part in enumerate(self._special.split(text)):
            if index % 2:
                yield part
            else:
                lower = (each.lower() for each in unicodedata.normalize("NFC", part))
                yield from word_pattern().findall("".join(lower))

    def _tokens(self, word: str) -> list[str]:
        """Merges the pairs of a word, the pair of the lowest rank first, the left one of equals."""
        if self._special.fullmatch(word):
            return [word]
        parts: list[str | None] = [_OF_BYTE[byte] for byte in word.encode()]
        parts[-1] = f"{parts[-1]}{END_OF_WORD}"
        following = [*range(1, len(parts)), -1]  # the index of the part after each; -1 for none
        before = [*range(-1, len(parts) - 1)]
        waiting: list[tuple[int, int, str, str]] = []  # rank, index and both parts of each pair

        def wait(left: int) -> None:
            right = following[left]
            if right < 0:
                return
            pair = (str(parts[left]), str(parts[right]))
            if pair in self._ranks:
                heapq.heappush(waiting, (self._ranks[pair], left, *pair))

        for index in range(len(parts)):
            wait(index)
        while waiting:
            _, left, *pair = heapq.heappop(waiting)
            right = following[left]
            if right < 0 or [parts[left], parts[right]] != pair:
                continue  # one of them has been merged since
            parts[left], parts[right] = "".join(pair), None
            following[left] = following[right]
            if following[left] >= 0:
                before[following[left]] = left
            if before[left] >= 0:
                wait(before[left])
            wait(left)
        return [part for part in parts if part is not None]


def clip_vocabulary_file(ids: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> bytes:
    """Returns a vocabulary as a file.

    Args:
        ids: Id of each token, by the characters that stand for its bytes.
        merges: Pairs of tokens that become one; those to be merged first come first.
    """
    content = {"ids": dict(ids), "merges": [list(pair) for pair in merges]}
    return json.dumps(content, ensure_ascii=False).encode()
