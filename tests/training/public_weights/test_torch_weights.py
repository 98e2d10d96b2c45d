"""Files of PyTorch: their tensors are read, and nothing in them is called."""

import argparse
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from tests.training.public_weights.published import drawn
from training.public_weights.layouts import read_vqgan
from training.public_weights.torch_weights import read_torch


def of_taming(torch: Any) -> dict[str, Any]:
    """A training run's file: the network, its loss, and what Lightning keeps beside."""
    weights = {name: torch.from_numpy(each) for name, each in drawn("taming").items()}
    weights["loss.discriminator.main.0.weight"] = torch.zeros(2)
    return {"state_dict": weights, "epoch": 3, "global_step": 7}


@pytest.mark.parametrize("old_form", [False, True])
def test_a_file_of_taming_is_read_without_its_loss(old_form: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "last.ckpt"
    torch.save(of_taming(torch), file, _use_new_zipfile_serialization=not old_form)
    read = read_vqgan(tmp_path, "taming", image_size=8)
    assert read.config.attention_levels == (1,)
    assert read.config.signed_pixels
    np.testing.assert_array_equal(
        read.parameters["quantizer.codebook"], drawn("taming")["quantize.embedding.weight"]
    )


def test_objects_beside_the_weights_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    monkeypatch.setattr(module, "ModelCheckpoint", callback, raising=False)
    parents = ("pytorch_lightning", "pytorch_lightning.callbacks")
    for name in (*parents, module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    content = {**of_taming(torch), "callbacks": {callback: {"best_model_path": "x"}}}
    file = tmp_path / "last.ckpt"
    torch.save({**content, "args": argparse.Namespace(ema=True)}, file)
    for name in (*parents, module.__name__):
        monkeypatch.delitem(sys.modules, name)
    assert read_torch(file)["epoch"] == 3


class Malice:
    """Pickles as a call of a function."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("the file's code ran",))


@pytest.mark.parametrize("old_form", [False, True])
def test_a_file_that_wants_to_run_code_is_refused(old_form: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "last.ckpt"
    content = {**of_taming(torch), "extra": Malice()}
    torch.save(content, file, _use_new_zipfile_serialization=not old_form)
    with pytest.raises(CheckpointMismatch, match=r"asks for _pytest\.\S*: expected") as caught:
        read_torch(file)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "last.ckpt"
    torch.save(of_taming(torch), file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(
        CheckpointMismatch, match=r"last\.ckpt is no readable PyTorch file"
    ) as caught:
        read_torch(file)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_dictionary_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save([torch.zeros(2)], tmp_path / "x.pt")
    with pytest.raises(CheckpointMismatch, match="expected a dictionary of tensors, got list"):
        read_torch(tmp_path / "x.pt")


def test_a_network_of_another_library_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"decoder.conv_in.weight": torch.zeros(2)}}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointMismatch, match=r"encoder.conv_in.weight, .* got none"):
        read_vqgan(tmp_path, "ldm", image_size=8)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="expected a file, or a folder with last"):
        read_vqgan(tmp_path, "taming", image_size=8)
    with pytest.raises(CheckpointNotFound, match="expected a PyTorch file, got"):
        read_torch(tmp_path / "nothing.ckpt")


def test_without_pytorch_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointNotFound, match="pip install torch"):
        read_torch(tmp_path / "last.ckpt")
