"""Unpickling rebuilds numpy arrays, and neither imports nor calls anything else."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.perceptual.errors import LpipsError
from training.perceptual.unpickling import unpickle_arrays


class Hostile:
    """Runs a command in whoever unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("module", [b"numpy._core.", b"numpy.core."])
def test_nested_arrays_come_back_by_their_path(module: bytes) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = pickle.dumps({"network": {"kernel": array}}, protocol=3)
    assert b"numpy._core." in content

    arrays = unpickle_arrays(content.replace(b"numpy._core.", module), "a.ckpt")

    assert list(arrays) == ["network/kernel"]
    np.testing.assert_array_equal(arrays["network/kernel"], array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_by_name_and_never_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    content = pickle.dumps({"kernel": np.ones(2, np.float32), "x": Hostile(trace)}, protocol)
    if protocol == 3:
        with pytest.raises(LpipsError, match=r"a\.ckpt asks for posix\.system"):
            unpickle_arrays(content, "a.ckpt")
    with pytest.raises(LpipsError, match="asks for"):
        unpickle_arrays(content, "a.ckpt")
    assert not trace.exists()


def test_a_damaged_pickle_is_refused() -> None:
    content = pickle.dumps({"kernel": np.ones(100, np.float32)}, protocol=3)
    for damaged in (b"", b"no pickle", content[:-30]):
        with pytest.raises(LpipsError, match="no readable pickle"):
            unpickle_arrays(damaged, "a.ckpt")


@pytest.mark.parametrize("value", [3, "text", [1.0], np.ones(2, np.float64), np.array([None])])
def test_anything_but_float32_arrays_is_refused_with_its_path(value: object) -> None:
    content = pickle.dumps({"network": {"kernel": value}}, protocol=3)
    with pytest.raises(LpipsError, match="expected a float32 array at 'network/kernel'"):
        unpickle_arrays(content, "a.ckpt")
