"""Certificates of `muse up --tls`: files, identities and probes."""

import io
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tools.local import serving
from tools.local.certificates import VALID, LocalAuthority
from tools.local.folders import Folders
from tools.local.manifest import local_overlay, read_overlay
from tools.local.network import Network
from tools.local.placement import LocalPod, place_pods
from tools.local.runner import Runner, running

Build = Callable[..., list[dict[str, Any]]]
ORCHESTRATOR = "spiffe://muse.local/orchestrator"


def names_of(cert: Path) -> x509.SubjectAlternativeName:
    certificate = x509.load_pem_x509_certificate(cert.read_bytes())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


@pytest.fixture
def secured(tmp_path: Path) -> dict[str, LocalPod]:
    """Pods of the overlay with certificates, by name."""
    with Network() as network:
        pods = place_pods(local_overlay(), network, Folders(tmp_path, tmp_path, tmp_path / "own"))
    authority = LocalAuthority(tmp_path / "tls")
    return {each.name: authority.secured(each) for each in pods}


def test_every_process_has_a_pair_of_its_own_that_its_owner_alone_reads(
    secured: dict[str, LocalPod], tmp_path: Path
) -> None:
    keys = {each.environment["MUSE_TLS_KEY"] for each in secured.values()}

    assert len(keys) == len(secured) == 6
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    files = list((tmp_path / "tls").iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert sorted(file.name for file in files if "ca" in file.name) == ["ca.crt"]


def test_stages_accept_the_orchestrator_alone(secured: dict[str, LocalPod]) -> None:
    for name, pod in secured.items():
        variables = pod.environment
        shown = names_of(Path(variables["MUSE_TLS_CERT"]))
        identity = f"spiffe://muse.local/{pod.deployment.name}"
        assert shown.get_values_for_type(x509.UniformResourceIdentifier) == [identity]
        addresses = {str(each) for each in shown.get_values_for_type(x509.IPAddress)}
        assert addresses == {pod.address.host, "127.0.0.1"}
        assert shown.get_values_for_type(x509.DNSName) == ["localhost"]
        assert pod.tls is not None
        client = names_of(Path(str(pod.tls.cert)))
        assert [each.value for each in client] == ["spiffe://muse.local/client"]
        if name == "orchestrator-0":
            assert variables["MUSE_STAGE_TLS_CERT"] == variables["MUSE_TLS_CERT"]
            assert variables["MUSE_STAGE_TLS_CA"] == variables["MUSE_TLS_CA"]
            assert "MUSE_TLS_CLIENTS" not in variables
        elif name == "gateway-0":
            assert variables["MUSE_ORCHESTRATOR_TLS_CERT"] == variables["MUSE_TLS_CERT"]
            assert variables["MUSE_ORCHESTRATOR_TLS_KEY"] == variables["MUSE_TLS_KEY"]
            assert variables["MUSE_ORCHESTRATOR_TLS_CA"] == variables["MUSE_TLS_CA"]
            assert "MUSE_TLS_CLIENTS" not in variables
        else:
            assert variables["MUSE_TLS_CLIENTS"] == ORCHESTRATOR


def test_certificates_live_for_days(secured: dict[str, LocalPod]) -> None:
    for variable in ("MUSE_TLS_CERT", "MUSE_TLS_CA"):
        file = Path(secured["base-0"].environment[variable])
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        assert certificate.not_valid_before_utc < datetime.now(UTC)
        assert certificate.not_valid_after_utc - datetime.now(UTC) <= VALID


def test_probes_and_forwarded_calls_speak_tls(manifests: Build, tmp_path: Path) -> None:
    overlay = read_overlay(manifests())
    authority = LocalAuthority(tmp_path / "tls")
    with Network() as network:
        folders = Folders(tmp_path, tmp_path, tmp_path / "own")
        placed = [authority.secured(each) for each in place_pods(overlay, network, folders)]
        (port,) = network.allocate([50050]).ports.values()
        with running(Runner(overlay, placed, io.StringIO(), base_port=port)) as runner:
            assert runner.tls == authority.client
            for address in (runner.address, f"127.0.0.1:{port}"):
                assert serving(address, "readiness", tls=authority.client)
                assert not serving(address, "readiness")


def test_the_callers_own_certificates_are_not_the_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSE_TLS_CA", "/elsewhere/ca.crt")
    monkeypatch.setenv("MUSE_STAGE_TLS_CERT", "/elsewhere/tls.crt")
    with Network() as network:
        pods = place_pods(local_overlay(), network, Folders(tmp_path, tmp_path, tmp_path / "own"))

    assert not [name for pod in pods for name in pod.environment if "TLS" in name]
