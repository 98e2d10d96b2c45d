"""A run learns the same on one device, on a mesh of eight, and on several processes."""

import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.virtual_devices import losses, start
from tests.waiting import wait_until

SCRIPT = "train_small_base.py"
MESHES: list[dict[str, Any]] = [
    {"mesh": "data=8"},
    {"mesh": "fsdp=8"},
    {"mesh": "tensor=8"},
    {"mesh": "data=2,fsdp=2,tensor=2", "accumulate": 4, "remat": True},
]


def start_processes(count: int, run: dict[str, Any]) -> "list[subprocess.Popen[str]]":
    """Starts several processes of one run, of a device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [start(SCRIPT, [run], address, str(count), str(each)) for each in range(count)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of twenty steps on one device."""
    run = {"mesh": "data=1", "out": str(tmp_path_factory.mktemp("one"))}
    (whole,) = losses(start(SCRIPT, [run]))
    assert len(whole) == 20
    assert np.ptp(whole) > 1e-3
    return whole


def test_every_mesh_of_eight_devices_gives_the_losses_of_one(
    expected: list[float], tmp_path: Path
) -> None:
    runs = [{**mesh, "out": str(tmp_path / mesh["mesh"])} for mesh in MESHES]
    for mesh, found in zip(MESHES, losses(start(SCRIPT, runs, devices=8)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=str(mesh))


@pytest.mark.parametrize("trained", [{"rank": 2}, {"family": "uvit"}], ids=str)
def test_an_adapter_and_a_uvit_learn_the_same_on_eight_devices_as_on_one(
    trained: dict[str, Any], tmp_path: Path
) -> None:
    mixed = {"mesh": "data=2,fsdp=2,tensor=2", "accumulate": 2, "remat": True}
    one, eight = [
        start(SCRIPT, [{**mesh, **trained, "out": str(tmp_path / str(devices))}], devices=devices)
        for devices, mesh in ((1, {"mesh": "data=1"}), (8, mixed))
    ]
    (expected,), (found,) = losses(one), losses(eight)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("count", "mesh"), [(2, "fsdp=2"), (4, "data=2,fsdp=2")])
def test_several_processes_give_the_losses_of_one(
    count: int, mesh: str, expected: list[float], tmp_path: Path
) -> None:
    processes = start_processes(count, {"mesh": mesh, "out": str(tmp_path)})
    first, *others = [losses(process) for process in processes]

    np.testing.assert_allclose(first[0], expected, atol=1e-5)
    assert others == [[]] * (count - 1)  # only the first process reports
    assert len(list((tmp_path / "snapshots").iterdir())) == 2


def test_a_signal_to_one_process_stops_all_at_one_step_and_one_device_goes_on(
    expected: list[float], tmp_path: Path
) -> None:
    slow = {"mesh": "fsdp=2", "out": str(tmp_path), "step_s": 0.3}
    processes = start_processes(2, slow)
    log = tmp_path / "metrics.jsonl"
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) >= 3, seconds=300)
    processes[1].send_signal(signal.SIGTERM)
    (stopped,), _ = [losses(process) for process in processes]
    (state,) = (int(folder.name) for folder in (tmp_path / "state").iterdir())

    assert 3 <= len(stopped) < 20
    assert state == len(stopped)
    (whole,) = losses(start(SCRIPT, [{"mesh": "data=1", "out": str(tmp_path)}]))
    np.testing.assert_allclose(whole, expected, atol=1e-5)
