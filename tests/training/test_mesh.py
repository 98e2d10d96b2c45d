"""The mesh of a run: its flag, and how it divides parameters and batches."""

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from training.mesh import AXES, Execution, one_device, parse_mesh, spec_of, training_mesh

MESH = AbstractMesh((2, 4, 2), AXES)


def test_axes_left_out_are_of_one_device() -> None:
    assert parse_mesh("fsdp=64, data=2") == {"data": 2, "fsdp": 64, "tensor": 1}


@pytest.mark.parametrize("text", ["", "model=2", "data", "data=0", "data=x", "data=2,data=2"])
def test_a_mesh_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected some of data=N, fsdp=N, tensor=N, each once"):
        parse_mesh(text)


def test_a_mesh_of_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes 999 devices, expected as many as .*: cpu x1"):
        training_mesh("fsdp=999", jax.devices()[:1])


def test_without_a_flag_the_examples_are_divided_among_all_devices() -> None:
    devices = jax.devices()
    assert dict(training_mesh(None, devices).shape) == {
        "data": len(devices),
        "fsdp": 1,
        "tensor": 1,
    }


@pytest.mark.parametrize(
    ("name", "shape", "spec"),
    [
        ("blocks.mlp.expand.kernel", (48, 2048, 8192), (None, "fsdp", "tensor")),
        ("blocks.mlp.contract.kernel", (48, 8192, 2048), (None, "tensor", "fsdp")),
        ("blocks.attention.attention.project.kernel", (2, 16, 48), (None, "fsdp", "tensor")),
        ("head.output.kernel", (2048, 8192), ("fsdp", "tensor")),
        ("embedding.token", (8193, 2048), (None, "fsdp")),
        ("blocks.attention.query_norm.scale", (48, 128), ()),
        ("blocks.mlp.expand.kernel", (48, 2046, 8192), (None, None, "tensor")),
        ("encoder.layers.1.first.kernel", (3, 3, 8, 16), (None, None, None, "fsdp")),
        ("encoder.blocks.attention.query", (3, 256, 256), (None, "fsdp", "tensor")),
    ],
)
def test_parameters_are_divided_by_their_names(
    name: str, shape: tuple[int, ...], spec: tuple[str | None, ...]
) -> None:
    assert spec_of(name, shape, MESH) == PartitionSpec(*spec)


@pytest.mark.parametrize(("accumulate", "batch_size"), [(3, 16), (0, 16)])
def test_a_batch_that_cannot_be_divided_is_refused(accumulate: int, batch_size: int) -> None:
    execution = Execution(mesh=one_device().mesh, accumulate=accumulate)
    with pytest.raises(ValueError, match=r"expected a multiple of 3|at least 1, got 0"):
        execution.check_batch(batch_size)
