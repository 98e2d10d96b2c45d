"""CLIP as a scorer: the cosine between a picture and its prompt (transformers, local weights).

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision"; Muse, section 3.2, which ranks by CLIP score.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from transformers import CLIPModel, CLIPProcessor


class ClipScorer:
    """Scores pictures by a CLIP checkpoint."""

    def __init__(self, folder: Path) -> None:
        """Loads a checkpoint that `save_pretrained` of transformers wrote; downloads nothing.

        Raises:
            OSError: the folder has no checkpoint.
        """
        name = str(folder)
        self._model: Any = CLIPModel.from_pretrained(name, local_files_only=True).eval()
        self._processor: Any = CLIPProcessor.from_pretrained(name, local_files_only=True)

    def scores(self, prompt: str, pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[float]:
        """Returns the cosine of each picture and the prompt, -1 to 1; truncates a long prompt."""
        inputs = self._processor(
            text=[prompt],
            images=list(pictures),
            return_tensors="pt",
            padding=True,
            truncation=True,
        )
        with torch.inference_mode():
            output = self._model(**inputs)
        cosines = output.image_embeds @ output.text_embeds[0]  # both are of unit length
        return [float(value) for value in cosines]
