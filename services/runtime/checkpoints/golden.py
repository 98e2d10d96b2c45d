"""The golden example of a checkpoint: what its stage answers to one input, kept beside the weights.

A digest says that the weights are those that were written. The golden example says that this
machine computes with them what the machine that wrote it computed: a server compares before it
serves. Compilers and devices round differently, and a server may keep its weights in fewer bits,
so that answers may differ a little; what a broken device or a wrong compilation answers differs
much.

    golden.safetensors   arrays "input.NAME" and "output.NAME"
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.runtime.checkpoints.documents import read_tensors
from services.runtime.checkpoints.errors import CheckpointMismatch, GoldenMismatch
from services.runtime.checkpoints.tensors import write_tensors

GOLDEN_FILE = "golden.safetensors"
LARGEST_DIFFERENCE = 0.1
_log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One example of a stage.

    Attributes:
        inputs: What the stage is asked, by name.
        outputs: What it answers, by name.
    """

    inputs: Arrays
    outputs: Arrays


def write_golden(folder: Path, golden: Golden) -> None:
    """Writes the golden example of the checkpoint in a folder."""
    arrays = {f"input.{name}": value for name, value in golden.inputs.items()}
    arrays |= {f"output.{name}": value for name, value in golden.outputs.items()}
    write_tensors(folder / GOLDEN_FILE, arrays)


def read_golden(folder: Path) -> Golden | None:
    """Reads the golden example of the checkpoint in a folder; None if it has none.

    Raises:
        CheckpointMismatch: the file cannot be read.
    """
    file = folder / GOLDEN_FILE
    if not file.is_file():
        return None
    arrays = read_tensors(file)
    sides = {
        side: {
            name.removeprefix(f"{side}."): value
            for name, value in arrays.items()
            if name.startswith(f"{side}.")
        }
        for side in ("input", "output")
    }
    return Golden(inputs=sides["input"], outputs=sides["output"])


def check_golden(folder: Path, answer: Callable[[Arrays], Arrays]) -> None:
    """Checks that a stage answers its checkpoint's golden example as it should; logs by how much.

    Args:
        folder: Of the checkpoint; if it has no golden example, nothing is checked.
        answer: Computes the outputs of the inputs, as the server will.

    Raises:
        CheckpointMismatch: the file cannot be read, or the stage cannot answer it.
        GoldenMismatch: an output is too far from what it should be.
    """
    golden = read_golden(folder)
    if golden is None:
        _log.info("%s has no golden example: what it computes is not checked", folder)
        return
    try:
        got = answer(golden.inputs)
        differences = {name: difference(value, got[name]) for name, value in golden.outputs.items()}
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointMismatch(
            f"{folder / GOLDEN_FILE} is of another stage or shape: {error!r}; "
            "write it again with `python -m training golden`"
        ) from error
    for name, far in differences.items():
        if not far <= LARGEST_DIFFERENCE:
            raise GoldenMismatch(
                f"{folder}: the golden example's {name} differ by {far:.1%} from those that were "
                f"written, expected at most {LARGEST_DIFFERENCE:.0%}: this machine computes "
                "something else with the same weights; try another, or other versions of jax and "
                "its drivers"
            )
    _log.info("golden example answered", extra={"differences": differences})


def difference(expected: np.ndarray, got: np.ndarray) -> float:
    """Returns how far an output is from the expected one: 0 if they are equal.

    For integers, ids of tokens, it is the share that differs. For others it is the norm of the
    difference over the norm of what is expected; NaN if a value is.

    Raises:
        ValueError: the shapes differ.
    """
    if expected.shape != got.shape:
        raise ValueError(f"expected an output of shape {expected.shape}, got {got.shape}")
    if expected.dtype == np.int32:
        return float(np.mean(expected != got))
    wanted, made = expected.astype(np.float64), got.astype(np.float64)
    return float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))
