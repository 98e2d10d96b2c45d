"""Files of a checkpoint that were cut, mixed up or made by another program are refused."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from services.runtime.checkpoints.adapters import LowRank, load_adapter, save_adapter
from services.runtime.checkpoints.documents import (
    MAX_NUMBER,
    config_of,
    read_object,
    read_record,
    read_tensors,
)
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.serialization import load_checkpoint, save_checkpoint


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A configuration with a field of every type."""

    side: int
    channels: tuple[int, ...] = (1, 2)
    overlaps: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))


GOOD = {"side": 4, "channels": [1, 2], "overlaps": False, "scale": 2}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'{"a": "\xff"}',  # no UTF-8
        b'{"a": 1' + b"0" * 5000 + b"}",  # more digits than Python reads
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)

    with pytest.raises(CheckpointMismatch, match=r"config\.json"):
        read_object(file)


def test_a_folder_without_a_record_has_an_empty_one(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}

    (tmp_path / "training.json").write_text("[1]")
    with pytest.raises(CheckpointMismatch, match="expected a JSON object, got list"):
        read_record(tmp_path)


def test_a_configuration_has_the_types_of_its_fields() -> None:
    assert config_of(Shape, GOOD, Path("f")) == Shape(side=4, overlaps=False, scale=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("side", 4.0),
        ("side", float("nan")),
        ("side", "4"),
        ("side", True),
        ("side", None),
        ("side", [4]),
        ("side", MAX_NUMBER + 1),
        ("channels", 3),
        ("channels", "12"),
        ("channels", [1, 2.5]),
        ("channels", [1, MAX_NUMBER + 1]),
        ("overlaps", 1),
        ("scale", "1"),
        ("scale", 10**400),
        ("another", 1),
    ],
)
def test_a_value_of_another_type_or_size_is_refused(field: str, value: object) -> None:
    with pytest.raises(CheckpointMismatch, match="f does not describe a Shape: "):
        config_of(Shape, GOOD | {field: value}, Path("f"))


def weights_of(data_type: str) -> bytes:
    """Returns a safetensors file of four bytes of a type."""
    header = {"a": {"dtype": data_type, "shape": [4], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\1\2\3\4"


@pytest.mark.parametrize("data_type", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F32", "X"])
def test_weights_of_a_type_that_numpy_lacks_are_refused(tmp_path: Path, data_type: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(weights_of("I8"))
    assert read_tensors(file)["a"].tolist() == [1, 2, 3, 4]

    file.write_bytes(weights_of(data_type))
    with pytest.raises(CheckpointMismatch, match=r"model\.safetensors cannot be read"):
        read_tensors(file)


def test_tensors_are_read_by_the_start_of_their_names(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(weights_of("I8"))

    assert list(read_tensors(file, prefixes=("b", "a"))) == ["a"]
    assert read_tensors(file, prefixes=("b",)) == {}


@pytest.mark.parametrize(
    "changes", [{"fingerprint": {"encoder": 3}}, {"fingerprint": ["ab", "cde"]}, {"config": 3}]
)
def test_a_checkpoint_whose_fields_have_other_types_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    save_checkpoint(
        tmp_path,
        stage="base",
        config=Shape(side=4),
        parameters={"a": np.ones(1, np.float32)},
        fingerprint={"encoder": "t5:1"},
        record={},
    )
    load_checkpoint(tmp_path, stage="base", config_type=Shape)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    with pytest.raises(CheckpointMismatch, match=r"config\.json"):
        load_checkpoint(tmp_path, stage="base", config_type=Shape)


@pytest.mark.parametrize("changes", [{"rank": 1.0}, {"rank": "1"}, {"alpha": 10**400}])
def test_an_adapter_whose_numbers_have_other_types_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    factors = {"a.lora_a": np.ones((2, 1), np.float32), "a.lora_b": np.ones((1, 2), np.float32)}
    save_adapter(
        tmp_path,
        stage="base",
        low_rank=LowRank(rank=1),
        checkpoint="sha256:0",
        parameters=factors,
        record={},
    )
    load_adapter(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    with pytest.raises(CheckpointMismatch, match="does not describe a LowRank"):
        load_adapter(tmp_path)
