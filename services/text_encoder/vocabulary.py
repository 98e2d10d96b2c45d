"""T5's vocabulary: SentencePiece pieces, then 100 sentinels, first sentinel last."""

import io
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Bool, Int

FILE_NAME = "spiece.model"
PADDING = 0
END = 1
UNKNOWN = 2
SENTINELS = 100  # ids that stand for a span cut out of the text; only training uses them


class PromptTooLong(ValueError):
    """A text has more tokens than fit.

    Attributes:
        tokens: How many tokens it has, the end-of-sequence token included; of a CLIP's vocabulary
            at least how many.
        limit: How many fit.
    """

    def __init__(self, tokens: int, limit: int) -> None:
        """Writes the message from the counts."""
        self.tokens, self.limit = tokens, limit
        super().__init__(
            f"the text has {tokens} tokens, the end token included: at most {limit} fit; shorten it"
        )


class Vocabulary:
    """Turns text into T5's ids and back."""

    def __init__(self, model: bytes) -> None:
        """Reads a serialised SentencePiece model.

        Raises:
            ValueError: it is none, or its special ids are not T5's.
        """
        self.model = model
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"the vocabulary is no SentencePiece model: {error}") from error
        special = (self._pieces.pad_id(), self._pieces.eos_id(), self._pieces.unk_id())
        if special != (PADDING, END, UNKNOWN):
            raise ValueError(
                f"the vocabulary's padding, end and unknown ids are {special}: "
                f"T5's are {(PADDING, END, UNKNOWN)}; use T5's own {FILE_NAME}"
            )

    @classmethod
    def from_file(cls, file: Path) -> "Vocabulary":
        """Reads spiece.model."""
        return cls(file.read_bytes())

    @property
    def size(self) -> int:
        """Pieces and sentinels; the embedding may have more rows, never fewer."""
        return int(self._pieces.get_piece_size()) + SENTINELS

    def sentinel(self, index: int) -> int:
        """Returns the id of a sentinel, counted down from the top as T5 does.

        Raises:
            ValueError: there is no such sentinel.
        """
        if not 0 <= index < SENTINELS:
            raise ValueError(f"sentinel must be 0 to {SENTINELS - 1}, got {index}")
        return self.size - 1 - index

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text and the end-of-sequence id after them."""
        return [*self._pieces.encode(text), END]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids; padding and end vanish, sentinels read <extra_id_0> etc."""
        parts: list[str] = []
        run: list[int] = []
        for number in [*map(int, ids), PADDING]:
            if PADDING < number < self._pieces.get_piece_size() and number != END:
                run.append(number)
                continue
            if run:
                parts.append(self._pieces.decode(run))
                run = []
            if number >= self._pieces.get_piece_size():
                parts.append(f"<extra_id_{self.size - 1 - number}>")
        return " ".join(parts)

    def encode_batch(
        self, texts: Sequence[str], length: int
    ) -> tuple[Int[np.ndarray, "B T"], Bool[np.ndarray, "B T"], int]:
        """Encodes texts side by side, each padded or cut to `length` positions.

        Returns:
            The ids; a mask that is True where there is text; and the number of texts that were
            cut. A text that was cut ends with the end-of-sequence id as the others do.
        """
        ids = np.full((len(texts), length), PADDING, np.int32)
        cut = 0
        for row, text in enumerate(texts):
            encoded = self.encode(text)
            if len(encoded) > length:
                encoded = [*encoded[: length - 1], END]
                cut += 1
            ids[row, : len(encoded)] = encoded
        return ids, ids != PADDING, cut


def train_vocabulary(texts: Iterable[str], size: int, *, examples: int = 20_000) -> Vocabulary:
    """Trains a SentencePiece vocabulary with T5's conventions.

    By pair merging, where T5's own is a unigram model: on texts of a few hundred words, merging
    makes each of them one piece; the unigram's pruning leaves fragments ("b", "ackgroun", "d").
    Upper case is folded into lower case, and every printable ASCII character has a piece, so that a
    word no training text had is still spelled out. It reads the first `examples` texts. `size`
    bounds the ids, sentinels included: the rows of the embedding.

    Raises:
        ValueError: size leaves no room for pieces.
    """
    characters = "".join(map(chr, range(ord("!"), ord("~") + 1)))
    pieces = size - SENTINELS
    if pieces < 2 * len(characters):
        raise ValueError(
            f"a vocabulary of {size} ids is too small: expected at least "
            f"{2 * len(characters) + SENTINELS}, of which {SENTINELS} are sentinels"
        )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(islice(texts, examples)),
        model_writer=model,
        model_type="bpe",
        vocab_size=pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars=characters,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=PADDING,
        eos_id=END,
        unk_id=UNKNOWN,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return Vocabulary(model.getvalue())
