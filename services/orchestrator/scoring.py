"""Choosing the best of several pictures: what a scorer is, and the one a server is told to use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8


class Scorer(Protocol):
    """Says how well pictures show what a prompt asks for."""

    def scores(self, prompt: str, pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[float]:
        """Returns one number a picture, the higher the better. It may take long: it gets a thread.

        Args:
            prompt: What they are to show.
            pictures: At least one, of one size or several.
        """


def load_scorer(name: str) -> Scorer | None:
    """Returns the scorer of a setting.

    Args:
        name: "clip:FOLDER", or nothing for none.

    Raises:
        ValueError: there is none of that name, or its packages or files are missing.
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
