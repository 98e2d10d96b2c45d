"""CLIP score: the cosine between a picture and its prompt, mean over a set.

Source: Muse, section 3.2, whose CLIP scores are such means; the model is the scorer of `best_of`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from services.orchestrator.scoring import Scorer, load_scorer
from training.evaluation.pictures.reading import PictureSet


@dataclass(frozen=True, kw_only=True)
class MeanScore:
    """Mean of some scores.

    Attributes:
        mean: Of the scores.
        standard_error: Of the mean as an estimate; 0 of a single picture.
        pictures: How many scores.
    """

    mean: float
    standard_error: float
    pictures: int

    def as_json(self) -> dict[str, float]:
        """Returns it as plain numbers."""
        return asdict(self)


def open_clip(folder: Path) -> Scorer:
    """Loads a CLIP checkpoint that `save_pretrained` of transformers wrote.

    Raises:
        ValueError: transformers or the checkpoint is missing.
    """
    scorer = load_scorer(f"clip:{folder}")
    assert scorer is not None  # a name was given
    return scorer


def picture_scores(pictures: PictureSet, scorer: Scorer) -> list[float]:
    """Returns the score of each picture of a set with its own prompt.

    Raises:
        ValueError: a picture has no prompt.
    """
    scores: list[float] = []
    for prompt, indices in _by_prompt(pictures):
        scores += scorer.scores(prompt, [pictures.read(index) for index in indices])
    return scores


def mean_score(scores: Sequence[float]) -> MeanScore:
    """Returns the mean of at least one score."""
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    return MeanScore(
        mean=float(np.mean(scores)),
        standard_error=deviation / len(scores) ** 0.5,
        pictures=len(scores),
    )


def scores_by_tag(pictures: PictureSet, scores: Sequence[float], tag: str) -> dict[str, MeanScore]:
    """Returns the mean score of each value of a tag, in the order of their first pictures.

    Raises:
        ValueError: a picture does not have the tag.
    """
    groups: dict[str, list[float]] = {}
    for name, tags, score in zip(pictures.names, pictures.tags, scores, strict=True):
        if tag not in tags:
            raise ValueError(
                f"by: expected a tag of every picture, got {tag!r}; {name} has "
                f"{', '.join(tags) or 'none'}"
            )
        groups.setdefault(str(tags[tag]), []).append(score)
    return {value: mean_score(each) for value, each in groups.items()}


def _by_prompt(pictures: PictureSet) -> Iterator[tuple[str, list[int]]]:
    """Yields each prompt and the pictures made of it, which follow one another."""
    for prompt, indices in groupby(range(len(pictures)), pictures.caption):
        listed = list(indices)
        if not prompt:
            raise ValueError(
                f"expected a prompt of every picture, got none of {pictures.names[listed[0]]}: "
                "write it into a .txt beside the picture"
            )
        yield prompt, listed
