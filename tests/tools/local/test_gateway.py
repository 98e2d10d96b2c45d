"""The gateway of `muse up`: what it needs, how it is probed, and the address it calls."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from services.stages import GATEWAY
from tools.local import gateway
from tools.local.certificates import LocalAuthority
from tools.local.folders import Folders
from tools.local.gateway import check_gateway, set_up
from tools.local.manifest import Probe, local_overlay
from tools.local.network import Network
from tools.local.placement import LocalPod, place_pods
from tools.local.probes import passes

NO_CREDENTIALS: dict[str, str] = {}


class Paths(BaseHTTPRequestHandler):
    """Answers /healthz with 200, /moved with 302 and all else with 503."""

    def do_GET(self) -> None:
        self.send_response({"/healthz": 200, "/moved": 302}.get(self.path, 503))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextmanager
def http_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Paths)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def probe(path: str) -> Probe:
    return Probe(
        port=8080,
        service=None,
        path=path,
        delay_s=0,
        period_s=1,
        timeout_s=5,
        successes=1,
        failures=1,
    )


@pytest.fixture
def pods(tmp_path: Path) -> dict[str, LocalPod]:
    """Pods of the overlay, by name."""
    with Network() as network:
        placed = place_pods(local_overlay(), network, Folders(tmp_path, tmp_path, tmp_path / "own"))
    return {each.name: each for each in placed}


@pytest.mark.parametrize(
    ("path", "passed"), [("/healthz", True), ("/moved", True), ("/readyz", False)]
)
def test_a_probe_by_http_passes_as_kubelets_do(path: str, passed: bool) -> None:
    with http_server() as address:
        assert passes(probe(path), address) == passed


def test_a_probe_of_nothing_or_of_plain_text_fails(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path / "tls")
    with http_server() as address:
        assert not passes(probe("/healthz"), address, authority.client)
    assert not passes(probe("/healthz"), address)


def test_it_calls_the_forwarded_port_and_no_other_pod_does(pods: dict[str, LocalPod]) -> None:
    ready = {name: set_up(pod, 60000, Path("/own")) for name, pod in pods.items()}

    assert ready["gateway-0"].environment["MUSE_ORCHESTRATOR"] == "127.0.0.1:60000"
    assert all(ready[name] is pod for name, pod in pods.items() if name != "gateway-0")


def test_it_has_jobs_in_the_folder_of_the_run_or_where_the_caller_says(
    pods: dict[str, LocalPod],
) -> None:
    pod = pods["gateway-0"]
    own = set_up(pod, 60000, Path("/own"))
    assert own.environment["MUSE_JOBS_DATABASE"] == "sqlite:////own/jobs.db"
    elsewhere = {**pod.environment, "MUSE_JOBS_DATABASE": "sqlite:////kept/jobs.db"}
    kept = set_up(replace(pod, environment=elsewhere), 60000, Path("/own"))
    assert kept.environment["MUSE_JOBS_DATABASE"] == "sqlite:////kept/jobs.db"


def test_an_overlay_may_be_run_without_it() -> None:
    overlay = local_overlay().without(GATEWAY)
    stages = {"orchestrator", "text-encoder", "tokenizer", "base", "superres"}

    assert {each.name for each in overlay.deployments} == stages
    assert {each.name for each in overlay.services} == stages


@pytest.mark.parametrize("missing", ["uvicorn", "opentelemetry.instrumentation.fastapi"])
def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def find_spec(name: str) -> object:
        if name == missing:
            raise ModuleNotFoundError(name)  # as where a parent is missing
        return object()

    monkeypatch.setattr(gateway, "find_spec", find_spec)
    with pytest.raises(ValueError, match=f"^gateway: expected the package {missing}, .*no-gatew"):
        check_gateway(NO_CREDENTIALS)


@pytest.mark.parametrize("variable", ["MUSE_API_KEYS_FILE", "MUSE_JWT_ISSUER"])
def test_where_callers_need_keys_it_needs_one(variable: str) -> None:
    check_gateway(NO_CREDENTIALS)
    with pytest.raises(ValueError, match=f"^gateway: expected MUSE_API_KEY beside {variable}"):
        check_gateway({variable: "x"})
    check_gateway({variable: "x", "MUSE_API_KEY": "y"})
