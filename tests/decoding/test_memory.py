"""A pool that has no room is refused with the numbers, before anything is loaded."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.decoding import memory
from services.decoding.loading import load_pool
from services.decoding.memory import GIB, NotEnoughMemory, check_memory, free_bytes, machine_bytes
from services.decoding.pool import DecodePool
from services.decoding.serving import ServingConfig
from services.presets import preset
from services.runtime.checkpoints.adapters import Adapter
from tests.decoding.conftest import base_parameters
from tests.drawn_adapters import drawn_adapter

TINY = preset("tiny").base
INFORMATION = "MemTotal:       24000000 kB\nMemAvailable:   10000000 kB\nBuffers:  1 kB\n"


class Device:
    """Stands in for an accelerator of 16 GiB, of which 4 are in use."""

    platform, device_kind = "tpu", "TPU"

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": 16 * GIB, "bytes_in_use": 4 * GIB}


class SilentDevice(Device):
    """One that does not say how much memory it has."""

    def memory_stats(self) -> None:  # type: ignore[override]
        return None


def test_what_just_fits_is_taken_and_one_slot_more_is_not() -> None:
    devices: list[Any] = [Device()] * 4

    check_memory(weights=4 * GIB, slot=GIB, slots=8, devices=devices)
    with pytest.raises(NotEnoughMemory) as caught:
        check_memory(weights=4 * GIB, slot=GIB, slots=9, devices=devices)

    assert str(caught.value) == (
        "more slots than memory: 9 slots need 9.00 GiB and the weights 4.00 GiB on each device of "
        "TPU x4, where 12.00 GiB are free; at most 8 fit, to be set by --max-batch-size"
    )


def test_weights_that_do_not_fit_alone_need_more_devices() -> None:
    devices: list[Any] = [Device()]

    with pytest.raises(NotEnoughMemory, match=r"13\.00 GiB .* --mesh model=N"):
        check_memory(weights=13 * GIB, slot=GIB, slots=1, devices=devices)


def test_a_device_that_does_not_say_what_it_has_is_not_asked_for_less() -> None:
    devices: list[Any] = [SilentDevice()]

    check_memory(weights=2**60, slot=2**60, slots=8, devices=devices)


def test_the_devices_of_a_cpu_share_what_the_machine_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (device,) = jax.local_devices(backend="cpu")[:1]
    monkeypatch.setattr(memory, "machine_bytes", lambda: 12 * GIB)

    assert free_bytes([device]) == 12 * GIB
    assert free_bytes([device] * 4) == 3 * GIB


def test_a_container_has_what_its_limit_leaves_and_files_do_not_count(tmp_path: Path) -> None:
    information = tmp_path / "meminfo"
    information.write_text(INFORMATION)
    assert machine_bytes(information, tmp_path) == 10_000_000 * 1024

    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 500\n")
    assert machine_bytes(information, tmp_path) == 10_000_000 * 1024

    (tmp_path / "memory.max").write_text("4000\n")
    assert machine_bytes(information, tmp_path) == 1500
    assert machine_bytes(tmp_path / "missing", tmp_path / "missing") is None


def load(parameters: dict[str, Any], slots: int, adapters: dict[str, Adapter]) -> DecodePool:
    return load_pool(
        lambda: BaseTransformer(TINY, rngs=nnx.Rngs(0)),
        parameters,
        serving=ServingConfig(slots=slots, dtype=jnp.float32),
        sharded={"heads": TINY.heads},
        inputs=(
            jax.ShapeDtypeStruct((1, TINY.text_length, TINY.text_hidden), np.float32),
            jax.ShapeDtypeStruct((1, TINY.text_length), np.bool_),
        ),
        tokens=TINY.tokens,
        mask_id=TINY.vocabulary,
        adapters=adapters,
    )


@pytest.mark.parametrize("ranks", [(), (2, 3)])
def test_a_pool_is_counted_as_what_its_arrays_take(
    monkeypatch: pytest.MonkeyPatch,
    build_base_pool: Callable[..., DecodePool],
    tmp_path: Path,
    ranks: tuple[int, ...],
) -> None:
    parameters = base_parameters()
    adapters = {
        str(rank): drawn_adapter(tmp_path / str(rank), parameters, rank=rank) for rank in ranks
    }
    built = build_base_pool(slots=3, adapters=adapters)
    arrays = jax.tree.leaves((built.parameters, built.programs.slots))
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in arrays)

    monkeypatch.setattr(memory, "machine_bytes", lambda: needed)
    assert load(parameters, 3, adapters).slots == 3
    monkeypatch.setattr(memory, "machine_bytes", lambda: needed - 1)
    with pytest.raises(NotEnoughMemory, match=re.escape("at most 2 fit")):
        load({}, 3, adapters)
