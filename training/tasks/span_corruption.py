"""T5's objective as data: cut spans out of a text, ask for them back.

    text     a red apple left of a dog
    inputs   a red <X> of a dog </s>
    targets  <X> apple left <Y> </s>

Source: Raffel et al. 2020, section 3.1.4 and figure 2 (15% of the tokens, spans of 3 on average).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from services.text_encoder.vocabulary import END, PADDING, Vocabulary

NOISE_DENSITY = 0.15
MEAN_SPAN = 3.0
LENGTH_STEP = 16  # rows are padded to multiples of this, so that few programs are compiled


class SpanBatch(NamedTuple):
    """Corrupted texts and what was cut out of them; padding is id 0.

    Attributes:
        inputs: What the encoder reads.
        targets: What the decoder must say.
    """

    inputs: Int[np.ndarray, "B T"]
    targets: Int[np.ndarray, "B U"]


def noise_mask(length: int, random: np.random.Generator) -> Bool[np.ndarray, " T"]:
    """Marks the tokens to cut out: about 15%, in spans of about 3, anywhere.

    Spans never touch each other. Unlike T5's own routine the text may begin with a span, and a
    single span need not lie at the end: T5 cuts texts of 512 tokens, where that hardly matters.

    Args:
        length: Tokens of the text, at least 2.
        random: Source of chance.
    """
    noise = int(np.clip(round(length * NOISE_DENSITY), 1, length - 1))
    kept = length - noise
    spans = int(np.clip(round(noise / MEAN_SPAN), 1, min(noise, kept + 1)))
    cut = _partition(noise, spans, random)
    # Between two spans lies at least one token; before the first and after the last may be none.
    gaps = _partition(kept + 2, spans + 1, random)
    gaps[0] -= 1
    gaps[-1] -= 1
    pieces = [np.zeros(gaps[0], bool)]
    for span, gap in zip(cut, gaps[1:], strict=True):
        pieces += [np.ones(span, bool), np.zeros(gap, bool)]
    return np.concatenate(pieces)


def _partition(total: int, parts: int, random: np.random.Generator) -> Int[np.ndarray, " P"]:
    """Cuts a total into positive parts, every way equally likely."""
    cuts = np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt(
    ids: Sequence[int], mask: Bool[np.ndarray, " T"], vocabulary: Vocabulary
) -> tuple[list[int], list[int]]:
    """Splits a text into what is left and what was cut out.

    Args:
        ids: The text's ids without the end-of-sequence id.
        mask: True where a token is cut out.
        vocabulary: Gives the sentinels.

    Returns:
        Inputs and targets, both ending with the end-of-sequence id.
    """
    inputs: list[int] = []
    targets: list[int] = []
    spans = 0
    for position, (token, hidden) in enumerate(zip(ids, mask, strict=True)):
        if not hidden:
            inputs.append(token)
            continue
        if position == 0 or not mask[position - 1]:
            inputs.append(vocabulary.sentinel(spans))
            targets.append(vocabulary.sentinel(spans))
            spans += 1
        targets.append(token)
    return [*inputs, END], [*targets, vocabulary.sentinel(spans), END]


def span_batch(
    texts: Sequence[str], vocabulary: Vocabulary, maximum_length: int, random: np.random.Generator
) -> SpanBatch:
    """Corrupts texts and lays them side by side.

    Args:
        texts: What to corrupt; one longer than maximum_length is cut short.
        vocabulary: Makes ids of them.
        maximum_length: Most positions of an input.
        random: Source of chance.

    Raises:
        ValueError: a text has fewer than two tokens: nothing would be left of it.
    """
    pairs = []
    for text in texts:
        ids = vocabulary.encode(text)[:-1][: maximum_length - 1]
        if len(ids) < 2:
            raise ValueError(f"a training text needs at least two tokens, got {text!r}")
        pairs.append(corrupt(ids, noise_mask(len(ids), random), vocabulary))
    inputs, targets = zip(*pairs, strict=True)
    return SpanBatch(_padded(inputs, maximum_length), _padded(targets, maximum_length))


def _padded(rows: Sequence[Sequence[int]], maximum_length: int) -> Int[np.ndarray, "B T"]:
    longest = max(map(len, rows))
    steps = -(-longest // LENGTH_STEP) * LENGTH_STEP
    padded = np.full((len(rows), max(longest, min(steps, maximum_length))), PADDING, np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded
