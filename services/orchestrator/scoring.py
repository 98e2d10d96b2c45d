"""Scorers, which rank the candidates of `best_of`: their interface, and loading one by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8


class Scorer(Protocol):
    """Scores how well pictures match a prompt."""

    def scores(self, prompt: str, pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[float]:
        """Returns one score for each picture, the higher the better; runs in a thread.

        Pictures may differ in size.
        """


def load_scorer(name: str) -> Scorer | None:
    """Loads the scorer of a setting such as "clip:FOLDER"; returns None for an empty setting.

    Raises:
        ValueError: the name is unknown, or the scorer's packages or files are missing.
    """
    if not name:
        return None
    kind, _, folder = name.partition(":")
    if kind != "clip" or not folder:
        raise ValueError(f"scorer: expected clip:FOLDER, got {name!r}")
    try:
        from services.orchestrator.clip_scorer import ClipScorer
    except ModuleNotFoundError as error:
        raise ValueError(f"scorer: clip needs {error.name}: pip install 'muse[clip]'") from error
    try:
        return ClipScorer(Path(folder))
    except OSError as error:
        raise ValueError(f"scorer: no CLIP checkpoint in {folder}: {error}") from error
