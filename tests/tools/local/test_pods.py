"""Pods are started, asked, restarted and ended as kubelet does it."""

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until
from tools.local import Restarts, Runner, serving
from tools.local.folders import Folders
from tools.local.manifest import read_overlay
from tools.local.network import Network
from tools.local.placement import place_pods, scaled
from tools.local.pods import Pod
from tools.local.runner import running

QUICK = Restarts(first_s=0.2, max_s=0.3)
PATIENCE_S = 30.0
FULL_DISK = Path("/dev/full")
Build = Callable[..., list[dict[str, Any]]]


def restarted(pod: Pod, times: int) -> bool:
    return pod.restarts == times and pod.ready


class Log(io.StringIO):
    """What was logged."""

    def events(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.getvalue().splitlines() if line[0] == "{"]
        return [line for line in lines if line["message"] == message]


@contextmanager
def pods(
    objects: list[dict[str, Any]],
    folder: Path,
    log: Log,
    *,
    several: bool | None = None,
    replicas: int = 1,
    restarts: Restarts = QUICK,
    base_port: int | None = None,
    kind: type[Runner] = Runner,
) -> Iterator[Runner]:
    overlay = scaled(read_overlay(objects), {"orchestrator": replicas})
    with Network(several=several) as network:
        placed = place_pods(overlay, network, Folders(folder, folder, folder / "own"))
        with running(kind(overlay, placed, log, restarts=restarts, base_port=base_port)) as runner:
            yield runner


@pytest.mark.parametrize("several", [None, False])
def test_every_pod_serves_at_a_place_of_its_own(
    manifests: Build, tmp_path: Path, several: bool | None
) -> None:
    with pods(manifests(), tmp_path, Log(), several=several, replicas=2) as runner:
        addresses = runner.addresses("orchestrator", ready=True)
        assert len(set(addresses)) == 2
        assert all(serving(address, "readiness") for address in addresses)
    assert not any(serving(address) for address in addresses)


def test_a_pod_that_crashes_is_started_again_and_waits_longer_each_time(
    manifests: Build, tmp_path: Path
) -> None:
    log = Log()
    with pods(manifests(), tmp_path, log) as runner:
        (pod,) = runner.pods
        for count in range(1, 4):
            assert pod.pid is not None
            os.kill(pod.pid, signal.SIGKILL)
            wait_until(partial(restarted, pod, count), PATIENCE_S)
        runner.check()
    assert [each["back_off_s"] for each in log.events("restarting")] == [0, 0.2, 0.3]
    assert "died with -9" in log.events("restarting")[0]["after"]


def test_readiness_comes_and_goes_without_a_restart(manifests: Build, tmp_path: Path) -> None:
    away, log = tmp_path / "away", Log()
    with pods(manifests(f"away={away}"), tmp_path, log) as runner:
        (pod,) = runner.pods
        away.touch()
        wait_until(lambda: not pod.ready, PATIENCE_S)
        assert runner.addresses("orchestrator", ready=True) == []
        away.unlink()
        wait_until(lambda: pod.ready, PATIENCE_S)
        assert pod.restarts == 0


def test_a_pod_whose_liveness_fails_is_restarted(manifests: Build, tmp_path: Path) -> None:
    sick, log = tmp_path / "sick", Log()
    with pods(manifests(f"sick={sick}"), tmp_path, log) as runner:
        (pod,) = runner.pods
        before = pod.pid
        sick.touch()
        wait_until(lambda: bool(log.events("unhealthy")), PATIENCE_S)
        sick.unlink()
        wait_until(lambda: pod.restarts == 1 and pod.ready, PATIENCE_S)
        assert pod.pid != before
    (event,) = log.events("unhealthy")
    assert event["reason"] == "the liveness probe has failed 2 times"


def test_who_dies_before_it_was_ever_ready_ends_everything_with_its_last_words(
    manifests: Build, tmp_path: Path
) -> None:
    with (
        pytest.raises(RuntimeError, match=r"^orchestrator-0 died with 3: no such mesh$"),
        pods(manifests("die=no such mesh"), tmp_path, Log()),
    ):
        raise AssertionError("it must not be ready")


def test_who_never_starts_in_time_ends_everything_at_the_third_try(
    manifests: Build, tmp_path: Path
) -> None:
    objects, log = manifests(), Log()
    container = objects[0]["spec"]["template"]["spec"]["containers"][0]
    container["startupProbe"] |= {"failureThreshold": 1, "periodSeconds": 0.05}
    container["startupProbe"]["grpc"] = {"port": 50050, "service": "missing"}
    with (
        pytest.raises(RuntimeError, match=r"orchestrator-0 was started 3 times, never ready: the"),
        pods(objects, tmp_path, log),
    ):
        raise AssertionError("it must not be ready")
    assert len(log.events("started")) == 3


def test_the_end_is_pre_stop_then_sigterm_then_sigkill(manifests: Build, tmp_path: Path) -> None:
    log = Log()
    with pods(manifests("deaf", pre_stop_s=0.5, grace_s=1), tmp_path, log) as runner:
        (address,) = runner.addresses("orchestrator")
        begun = time.monotonic()
    took_s = time.monotonic() - begun
    assert 0.5 + 2 <= took_s < 6  # 2 s are the least after SIGTERM
    assert [each["seconds"] for each in log.events("preStop")] == [0.5]
    assert [each["grace_s"] for each in log.events("killed")] == [1]
    assert "deaf\n" in log.getvalue()
    assert not serving(address)


def test_an_interrupt_while_pods_are_started_leaves_none(manifests: Build, tmp_path: Path) -> None:
    started: list[Runner] = []

    class Interrupted(Runner):
        def start(self) -> None:
            super().start()
            started.append(self)
            wait_until(lambda: self.pods[0].pid is not None, PATIENCE_S)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pods(manifests(), tmp_path, Log(), kind=Interrupted):
        pass
    assert [pod.pid for runner in started for pod in runner.pods] == [None]


def test_connections_to_this_machine_go_to_ready_pods(manifests: Build, tmp_path: Path) -> None:
    with Network(several=False) as network:
        port = network.allocate([1]).ports[1]
        away = tmp_path / "away"
        with pods(manifests(f"away={away}"), tmp_path, Log(), base_port=port) as runner:
            assert serving(f"127.0.0.1:{port}", "readiness")
            away.touch()
            wait_until(lambda: not runner.pods[0].ready, PATIENCE_S)
            assert not serving(f"127.0.0.1:{port}", "liveness")
            with (
                pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{port} .*base-port"),
                pods(manifests(), tmp_path, Log(), base_port=port),
            ):
                raise AssertionError("the port is taken")


def test_waits_between_restarts_double_up_to_the_longest_however_many_there_were() -> None:
    waits = [Restarts().wait_s(ended) for ended in (1, 2, 3, 4, 7, 8, 5000)]
    assert waits == [0, 10, 20, 40, 300, 300, 300]


def test_of_an_endless_line_the_start_is_copied(manifests: Build, tmp_path: Path) -> None:
    log = Log()
    with pods(manifests("say=30000000"), tmp_path, log):
        wait_until(lambda: "serving" in log.getvalue(), PATIENCE_S)
    assert "x" * 2**16 in log.getvalue()
    assert len(log.getvalue()) < 2**17


@pytest.mark.skipif(not FULL_DISK.exists(), reason="Linux alone has a disk that is full")
def test_pods_run_on_when_the_disk_of_their_log_is_full(
    manifests: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing can be written to this device, and nothing is left to write when it is closed.
    with FULL_DISK.open("wb", buffering=0) as file:
        log = TextIOWrapper(file, write_through=True)
        with pods(manifests(), tmp_path, log) as runner:  # type: ignore[arg-type]
            assert serving(runner.address, "readiness")
            time.sleep(0.5)
            assert serving(runner.address, "readiness")
    assert capsys.readouterr().err == "muse: lines of log are lost: No space left on device\n"
