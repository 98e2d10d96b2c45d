"""Old PyTorch files: read without PyTorch, and nothing in them is called."""

import io
import pickle

import numpy as np
import pytest

from tests.training.evaluation.distances.conftest import torch_file
from training.evaluation.distances.torch_files import read_torch_arrays

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_arrays_come_back_also_transposed_ones() -> None:
    # A transposed tensor has its storage's order, not its own.
    turned = np.asfortranarray(ARRAY)
    read = read_torch_arrays(torch_file({"one": ARRAY, "turned": turned}), "x.pth")
    assert sorted(read) == ["one", "turned"]
    for array in read.values():
        np.testing.assert_array_equal(array, ARRAY)


def test_what_pytorch_writes_is_read() -> None:
    torch = pytest.importorskip("torch")
    stream = io.BytesIO()
    tensor = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4).permute(2, 0, 1)
    state = {"whole": tensor, "part": tensor[1:, :, 1], "count": torch.tensor(7)}
    torch.save(state, stream, _use_new_zipfile_serialization=False)
    read = read_torch_arrays(stream.getvalue(), "x.pth")
    for name, expected in state.items():
        np.testing.assert_array_equal(read[name], expected.numpy())


class Malice:
    """Pickles as a call of a function."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("the file's code ran",))


def test_a_file_that_calls_something_else_is_refused() -> None:
    content = torch_file({"one": ARRAY})
    start = content.index(b"ccollections")
    calling = content[: start - 2] + pickle.dumps(Malice(), 2) + content[start:]
    with pytest.raises(ValueError, match=r"x\.pth: expected a PyTorch file .*asks for _pytest"):
        read_torch_arrays(calling, "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "before version 1.6"),
        (torch_file({"one": ARRAY})[:-4], "buffer is smaller"),
        (torch_file({"one": ARRAY}).replace(b"\xe9\x03.", b"\xea\x03."), "protocol"),
        (torch_file({"one": ARRAY[:, ::-1]}), "strides"),
    ],
)
def test_a_file_of_another_form_or_a_damaged_one_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_torch_arrays(content, "x.pth")
