"""Answers of raters, and for how many prompts they prefer the same set.

Source: Muse, section 3.2.1: five raters see each pair, and at least three must agree for a result
in favour of a model; figure 9 breaks the results down by 5, at least 4 and at least 3 of them.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.evaluation.raters.page import Key

CHOICES = ("first", "second", "indifferent")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one rater chose.

    Attributes:
        rater: Name or number.
        choices: One of CHOICES for each pair, in the order of the key.
    """

    rater: str
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """How many prompts' raters prefer each set.

    Attributes:
        prompts: How many were judged.
        agreeing: For each set, prompts by the number of raters who prefer it, if they are enough.
        without: Prompts for which too few raters agree, or that leave most of them indifferent.
    """

    prompts: int
    agreeing: tuple[Counter[int], Counter[int]]
    without: int

    def at_least(self, which: int, raters: int) -> int:
        """Returns the prompts for which at least so many raters prefer a set."""
        return sum(count for votes, count in self.agreeing[which].items() if votes >= raters)


def read_answers(file: Path, key: Key) -> Answers:
    """Reads the answers that a page saved.

    Raises:
        ValueError: they are of another page, or a pair has none.
        OSError: the file cannot be read.
    """
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        page, rater, answers = saved["page"], str(saved["rater"]), dict(saved["answers"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: expected answers that a page saved, got {error!r}") from error
    if page != key.page:
        raise ValueError(f"{file}: expected answers of page {key.page}, got those of page {page}")
    choices: list[str] = []
    for index in range(len(key.prompts)):
        choice = answers.get(str(index))
        if choice not in CHOICES:
            raise ValueError(
                f"{file}: expected one of {', '.join(CHOICES)} for pair {index}, got {choice!r}"
            )
        choices.append(choice)
    return Answers(rater=rater, choices=tuple(choices))


def count_consensus(key: Key, answers: Sequence[Answers], *, needed: int) -> Consensus:
    """Counts the prompts for which enough raters prefer the same set.

    Args:
        key: Of the page.
        answers: Of all raters.
        needed: Raters who must agree; more than half of them.

    Raises:
        ValueError: a rater answered twice, or two sets could both have enough raters.
    """
    twice = [rater for rater, count in Counter(each.rater for each in answers).items() if count > 1]
    if twice:
        raise ValueError(f"expected one file of each rater, got several of {', '.join(twice)}")
    if not len(answers) / 2 < needed <= len(answers):
        raise ValueError(
            f"consensus: expected more than half of {len(answers)} raters and at most all, "
            f"got {needed}"
        )
    agreeing, without = (Counter[int](), Counter[int]()), 0
    for pair, first in enumerate(key.first):
        votes = Counter(each.choices[pair] for each in answers)
        by_set = (votes["first"], votes["second"])
        winner = first if by_set[0] >= by_set[1] else 1 - first
        if max(by_set) >= needed:
            agreeing[winner][max(by_set)] += 1
        else:
            without += 1
    return Consensus(prompts=len(key.first), agreeing=agreeing, without=without)
