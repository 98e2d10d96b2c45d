"""Folders of text encoders as transformers and diffusers write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.drawn_tensors import drawn_tensors

GOLDENS = Path(__file__).parents[1] / "goldens" / "text_encoder"
BUCKETS = {"relative_attention_num_buckets": 32}  # transformers writes its defaults too


def golden(kind: str) -> dict[str, np.ndarray]:
    """Reads the golden of a kind: "t5_1_0" or "umt5"."""
    with np.load(GOLDENS / f"{kind}.npz") as arrays:
        return dict(arrays)


def drawn(kind: str) -> dict[str, np.ndarray]:
    """Draws the weights of a golden's encoder."""
    shapes = json.loads(str(golden(kind)["shapes"]))
    return drawn_tensors({name: tuple(shape) for name, shape in shapes.items()})


def write_encoder(
    folder: Path,
    kind: str = "t5_1_0",
    *,
    files: Mapping[str, dict[str, np.ndarray]] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an encoder; returns its folder.

    Args:
        folder: Made if it is missing.
        kind: Whose config.json, and whose weights unless `files` has others.
        files: Tensors of each file.
        fields: Of config.json, in place of those of the kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = json.loads(str(golden(kind)["fields"])) if fields is None else dict(fields)
    (folder / "config.json").write_text(json.dumps({**BUCKETS, **given}))
    for name, tensors in ({"model.safetensors": drawn(kind)} if files is None else files).items():
        save_file(tensors, folder / name)
    return folder
