"""`muse deploy logs` against a fake API server."""

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from k8s.deployment import logs
from k8s.deployment.cluster import Cluster
from k8s.deployment.logs import coming_lines, parse_since
from k8s.deployment.overlays import open_overlay

V5E = ("--overlay", "gke-v5e")


def pod(service: str, name: str, phase: str = "Running") -> Any:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "muse",
            "labels": {"app.kubernetes.io/name": service},
        },
        "status": {"phase": phase},
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


@pytest.fixture
def heard(
    three: Any, rendered: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator["queue.Queue[str]"]:
    """The lines of base as they come, after the four that were there."""
    monkeypatch.setattr(logs, "LOOK_S", 0.05)
    base = [
        each for each in open_overlay("gke-v5e").deployments if each["metadata"]["name"] == "base"
    ]
    lines: queue.Queue[str] = queue.Queue()
    over = threading.Event()

    def listen() -> None:
        for line in coming_lines(Cluster(), "muse", base, since_s=60):
            if over.is_set():  # the API server that goes away says a last line
                return
            lines.put(f"{line.pod} {line.text}")

    threading.Thread(target=listen, daemon=True).start()
    past = {lines.get(timeout=20) for _ in range(4)}
    assert past == {"base-1 first", "base-1 fifth", "base-2 second", "base-2 fourth"}
    yield lines
    over.set()


def test_followed_lines_come_as_they_are_said_also_of_new_pods(
    three: Any, heard: "queue.Queue[str]"
) -> None:
    three.say("base-2", "2026-11-26T00:00:09Z more")
    assert heard.get(timeout=20) == "base-2 more"
    three.say("base-4", "2026-11-26T00:00:10Z hello")
    three.put(pod("base", "base-4"))
    assert heard.get(timeout=20) == "base-4 hello"


def test_a_container_that_is_started_again_is_followed_on(
    three: Any, heard: "queue.Queue[str]"
) -> None:
    three.end("base-1")
    three.logs["base-1"] = []
    three.say("base-1", "2026-11-26T00:00:11Z again")
    assert heard.get(timeout=20) == "base-1 again"


def test_a_log_that_breaks_off_says_so_and_is_taken_up_where_it_was_left(
    three: Any, heard: "queue.Queue[str]"
) -> None:
    three.end("base-1", broken=True)
    assert heard.get(timeout=20).startswith("base-1 [Pod/base-1: its log broke off")
    three.say("base-1", "2026-11-26T00:00:12Z more")
    assert heard.get(timeout=20) == "base-1 more"
    assert {"container": "server", "timestamps": "true", "sinceTime": "2026-11-26T00:00:04Z"} in [
        {name: value for name, value in query.items() if name != "follow"}
        for query in three.asked_logs
    ]


def test_an_api_server_that_is_unwell_for_a_while_is_said_once_and_following_goes_on(
    three: Any, heard: "queue.Queue[str]"
) -> None:
    three.unwell["list", "pods"] = 5
    assert heard.get(timeout=20) == (
        "cluster [the cluster refused to list pods in namespace muse (503): etcdserver: leader "
        "changed]"
    )
    three.say("base-1", "2026-11-26T00:00:12Z more")
    assert heard.get(timeout=20) == "base-1 more"
    assert three.unwell["list", "pods"] < 5


def test_following_ends_on_an_interrupt_with_130(three: Any, rendered: Any) -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tools.cli.main import main\n"
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
