"""A real control plane: one that is started from KUBEBUILDER_ASSETS, or that of KUBECONFIG."""

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from k8s.deployment.cluster import Cluster, ClusterError

NONE = (
    "no control plane: set KUBEBUILDER_ASSETS (a folder with etcd and kube-apiserver) or "
    "KUBECONFIG (an empty cluster)"
)
NO_CONTROLLERS = (
    "no control plane with controllers and a scheduler: put kube-controller-manager and "
    "kube-scheduler beside those in KUBEBUILDER_ASSETS, or set KUBECONFIG"
)
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
START_S, STOP_S = 60.0, 10.0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _commands(assets: Path, folder: Path, port: int, token: str) -> list[list[str]]:
    """Returns how etcd and kube-apiserver are started, as envtest of controller-runtime does it."""
    etcd, key = f"http://127.0.0.1:{_free_port()}", folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f'{token},admin,1,"system:masters"\n')
    return [
        [
            str(assets / "etcd"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync",
        ],
        [
            str(assets / "kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--cert-dir={folder}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged=true",  # so that it is the namespace's profile that refuses
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",  # no controller makes the default one
            "--service-account-issuer=https://127.0.0.1/",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={folder / 'tokens.csv'}",
        ],
    ]


def _controllers(assets: Path, folder: Path) -> list[list[str]]:
    """Returns how the controllers and the scheduler are started, if they are there."""
    if not _has_controllers(assets):
        return []
    kubeconfig, own = str(folder / "kubeconfig"), ["--leader-elect=false", "--secure-port=0"]
    keys = [f"--service-account-private-key-file={folder / 'accounts.key'}"]
    often = ["--horizontal-pod-autoscaler-sync-period=1s"]  # it is waited for
    return [
        [str(assets / name), f"--kubeconfig={kubeconfig}", *own, *more]
        for name, more in zip(CONTROLLERS, (keys + often, []), strict=True)
    ]


def _has_controllers(assets: Path) -> bool:
    return all((assets / name).exists() for name in CONTROLLERS)


def _answers(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Waits until the API server answers.

    Raises:
        RuntimeError: it does not, or has ended.
    """
    end = time.monotonic() + START_S
    while True:
        try:
            Cluster().objects("v1", "Namespace")
            return
        except ClusterError as error:
            ended = any(process.poll() is not None for process in processes)
            if ended or time.monotonic() > end:
                words = (folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(
                    f"the control plane does not answer: {error}\n{words}"
                ) from error
        time.sleep(0.5)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The variable that names the control plane; KUBECONFIG reaches it."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        if not os.environ.get("KUBECONFIG"):
            pytest.skip(NONE)
        yield "KUBECONFIG"
        return
    folder, port, token = tmp_path_factory.mktemp("api"), _free_port(), secrets.token_hex()
    file = folder / "kubeconfig"
    server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    content = {
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "clusters": [{"name": "tests", "cluster": server}],  # it makes its own certificate
        "users": [{"name": "admin", "user": {"token": token}}],
    }
    file.write_text(yaml.safe_dump(content))
    processes: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patched, (folder / "log").open("wb") as log:
        patched.setenv("KUBECONFIG", str(file))
        try:
            for command in _commands(Path(assets), folder, port, token):
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            _answers(processes, folder)
            for command in _controllers(Path(assets), folder):
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            yield "KUBEBUILDER_ASSETS"
        finally:
            for process in reversed(processes):
                process.terminate()
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture(scope="session")
def whole_cluster(control_plane: str) -> None:
    """A control plane with controllers and a scheduler."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if control_plane == "KUBEBUILDER_ASSETS" and not _has_controllers(Path(assets or "")):
        pytest.skip(NO_CONTROLLERS)
