"""Weights that are not those that were written, or are no numbers, are refused by a sentence."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from services.runtime.checkpoints.errors import CheckpointDamaged
from services.runtime.checkpoints.integrity import check_finite
from services.runtime.checkpoints.serialization import load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class Shape:
    """Configuration of a stage that has none."""


WEIGHTS = {
    "a.kernel": np.arange(6, dtype=np.float32).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "b.kernel": np.full((2, 3), -3, ml_dtypes.bfloat16),
}


def saved(folder: Path) -> Path:
    save_checkpoint(
        folder, stage="base", config=Shape(), parameters=WEIGHTS, fingerprint={}, record={}
    )
    return folder / "model.safetensors"


def load(folder: Path) -> None:
    load_checkpoint(folder, stage="base", config_type=Shape)


def flip_a_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def swap_the_tensors(content: bytes) -> bytes:
    return content[:-24] + content[-12:] + content[-24:-12]


@pytest.mark.parametrize(
    "damage", [flip_a_bit, swap_the_tensors, lambda content: content[:-1], lambda content: b""]
)
def test_other_bytes_than_were_written_are_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    weights = saved(tmp_path)
    load(tmp_path)
    weights.write_bytes(damage(weights.read_bytes()))

    with pytest.raises(CheckpointDamaged, match=r"model\.safetensors is not what was written: ex"):
        load(tmp_path)


def test_a_checkpoint_without_a_digest_is_served_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path)
    header = json.loads((tmp_path / "config.json").read_text())
    del header["digest"]
    (tmp_path / "config.json").write_text(json.dumps(header))

    with caplog.at_level(logging.WARNING):
        load(tmp_path)
    assert "has no digest of the weights" in caplog.text


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(dtype: type, value: float) -> None:
    largest = float(ml_dtypes.finfo(dtype).max)
    sound = np.array([[0.0, -largest, largest]], dtype)
    check_finite(Path("x"), {"a": sound, "ids": np.arange(3)})

    wrong = sound.copy()
    wrong[0, 1] = value
    with pytest.raises(CheckpointDamaged, match="x: 1 of 3 values of b are infinite or NaN"):
        check_finite(Path("x"), {"a": sound, "b": wrong})
