"""What is deployed, run here: three pods of base, of which one is killed while all are busy."""

import io
import json
import os
import signal
import ssl
import threading
import urllib.request
from pathlib import Path

import pytest
from muse_client import MuseClient, Unavailable

from tests.integration.ports import GATEWAY_OFFSET, free_base_port
from tests.waiting import wait_until
from tools.local import local_stack
from tools.local.pods import Pod

CALLERS, PATIENCE_S = 4, 120.0


def served(pod: Pod) -> float:
    """Returns how many calls of Generate a pod of base has answered, as its metrics say."""
    with urllib.request.urlopen(f"http://{pod.local.address.endpoint(9464)}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("muse_request_duration_seconds_count") and 'kind="generate"' in line
    )


class Load:
    """Callers that ask for one picture after the other, until stopped."""

    def __init__(self, address: str) -> None:
        self.pictures, self.failures = 0, list[Exception]()
        self._address, self._over = address, threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def _call(self) -> None:
        with MuseClient(self._address, timeout_s=60) as client:
            while not self._over.is_set():
                try:
                    self.pictures += len(client.generate("a fox", seed=1))
                except Exception as error:
                    self.failures.append(error)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_a_base_that_is_killed_fails_no_request_and_gets_its_share_again(
    checkpoints: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with local_stack(checkpoints, io.StringIO(), replicas={"base": 3}) as stack:
        bases = [pod for pod in stack.pods if pod.local.deployment.name == "base"]
        assert [pod.local.name for pod in bases] == ["base-0", "base-1", "base-2"]
        assert len({pod.local.address.endpoint(50053) for pod in bases}) == 3
        with Load(stack.address) as load:
            wait_until(lambda: all(served(pod) > 0 for pod in bases), PATIENCE_S)
            first = bases[1].pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: not bases[1].ready, PATIENCE_S)
            wait_until(lambda: bases[1].ready, PATIENCE_S)
            wait_until(lambda: served(bases[1]) > 0, PATIENCE_S)
        assert load.failures == []
        assert load.pictures > 3
        assert [pod.restarts for pod in bases] == [0, 1, 0]
        assert bases[1].pid not in (None, first)
    assert [pod.pid for pod in stack.pods] == [None] * len(stack.pods)


def test_a_stack_with_tls_paints_for_its_client_and_no_other(
    checkpoints: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    base_port = free_base_port()
    gateway_port = base_port + GATEWAY_OFFSET
    with local_stack(
        *(checkpoints, io.StringIO()),
        replicas={"orchestrator": 2},
        base_port=base_port,
        gateway_port=gateway_port,
        tls=True,
    ) as stack:
        with MuseClient(stack.address, tls=stack.tls, timeout_s=60) as client:
            assert len(client.generate("a fox", seed=1)) == 1
        with MuseClient(stack.address) as plain, pytest.raises(Unavailable, match="speaks TLS"):
            plain.status()
        assert stack.tls is not None
        trusted = ssl.create_default_context(cafile=stack.tls.ca)
        models = f"https://127.0.0.1:{gateway_port}/v1/models"
        with urllib.request.urlopen(models, context=trusted, timeout=60) as answer:
            assert [each["id"] for each in json.load(answer)["data"]] == ["tiny"]
