"""`muse deploy logs` against a fake API server."""

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from k8s.deployment import logs
from k8s.deployment.cluster import Cluster, Unreachable
from k8s.deployment.logs import coming_lines, parse_since
from k8s.deployment.overlays import open_overlay

V5E = ("--overlay", "gke-v5e")


def pod(service: str, name: str, phase: str = "Running", restarts: int = 0) -> Any:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "muse",
            "labels": {"app.kubernetes.io/name": service},
        },
        "spec": {"restarts": restarts},  # so that the fake sees a change
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "server", "restartCount": restarts}],
        },
    }


@pytest.fixture
def three(api: Any) -> Any:
    """Two pods of base and one of superres, which have logged; one of base is Pending."""
    api.put(pod("base", "base-1"))
    api.put(pod("base", "base-2"))
    api.put(pod("base", "base-3", "Pending"))
    api.put(pod("superres", "superres-1"))
    api.say("base-1", "2026-11-26T00:00:01.1Z first", "2026-11-26T00:00:04Z fifth")
    api.say("base-2", "2026-11-26T00:00:01.12Z second", "2026-11-26T00:00:03.5Z fourth")
    api.say("superres-1", "2026-11-26T00:00:02Z third")
    return api


def test_lines_of_all_pods_are_in_the_order_of_their_time(three: Any, muse: Any) -> None:
    ended = muse("logs", *V5E)

    assert ended.status == 0, ended
    assert ended.out.splitlines()[1:] == [
        "base-1 first",
        "base-2 second",
        "superres-1 third",
        "base-2 fourth",
        "base-1 fifth",
    ]


def test_of_one_service_there_are_its_lines_alone(three: Any, muse: Any) -> None:
    assert muse("logs", "superres", *V5E).out.splitlines()[1:] == ["superres-1 third"]


def test_since_is_handed_to_the_server(three: Any, muse: Any) -> None:
    assert muse("logs", "base", *V5E, "--since", "10m").status == 0

    assert [query.get("sinceSeconds") for query in three.asked_logs] == ["600", "600"]


def test_it_is_the_log_of_the_server_whatever_runs_beside_it_in_the_pod(
    three: Any, muse: Any
) -> None:
    assert muse("logs", "superres", *V5E).status == 0

    (deployment,) = (
        each for each in open_overlay("gke-v5e").deployments if "superres" in str(each["metadata"])
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert [query.get("container") for query in three.asked_logs] == [container["name"]]


def test_a_pod_whose_log_cannot_be_read_does_not_hide_the_others(three: Any, muse: Any) -> None:
    del three.logs["base-2"]

    out = muse("logs", "base", *V5E).out

    assert "base-1 fifth" in out
    assert "base-2 [Pod/base-2: the cluster refused to get pods/log in namespace muse (400)" in out


def test_followed_lines_come_as_they_are_said_also_of_new_pods_and_restarted_ones(
    three: Any, rendered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOOK_S", 0.05)
    base = [
        each for each in open_overlay("gke-v5e").deployments if each["metadata"]["name"] == "base"
    ]
    heard: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        with contextlib.suppress(Unreachable):  # when the test is over
            for line in coming_lines(Cluster(), "muse", base, since_s=60):
                heard.put(f"{line.pod} {line.text}")

    def said(count: int) -> set[str]:
        return {heard.get(timeout=20) for _ in range(count)}

    threading.Thread(target=listen, daemon=True).start()

    assert said(4) == {"base-1 first", "base-1 fifth", "base-2 second", "base-2 fourth"}
    three.say("base-2", "2026-11-26T00:00:09Z more")
    assert said(1) == {"base-2 more"}
    three.say("base-4", "2026-11-26T00:00:10Z hello")
    three.put(pod("base", "base-4"))
    assert said(1) == {"base-4 hello"}
    three.logs["base-1"] = []
    three.say("base-1", "2026-11-26T00:00:11Z again")
    three.put(pod("base", "base-1", restarts=1))
    assert said(1) == {"base-1 again"}


def test_following_ends_on_an_interrupt_with_130(three: Any, rendered: Any) -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from services.orchestrator.cli import main\n"
        "sys.argv = ['muse', 'deploy', 'logs', 'base', '--follow', '--overlay', 'gke-v5e']\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        try:
            assert any("base-1 first" in line for line in command.stdout)
            command.send_signal(signal.SIGINT)
            _, error = command.communicate(timeout=30)
        finally:
            command.kill()

    assert command.returncode == 130
    assert error == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400)]
)
def test_times_are_read(text: str, seconds: int) -> None:
    assert parse_since(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "-5m", "1w", "ten"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="since: expected a time such as 90s, 10m, 2h or 1d, got"):
        parse_since(text)
