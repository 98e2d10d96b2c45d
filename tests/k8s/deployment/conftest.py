"""A cluster that answers, and a kubeconfig that names it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.k8s.deployment.fake_api import FakeApiServer, Manifest


def _kubeconfig(folder: Path, address: str) -> Path:
    file = folder / "kubeconfig"
    content = {
        "current-context": "fake",
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": "reader"}}
            for name in ("fake", "away")
        ],
        "clusters": [
            {"name": "fake", "cluster": {"server": address}},
            {"name": "away", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "reader", "user": {}}],
    }
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    """A fake API server that answers, and a kubeconfig that names it, and one that is away."""
    server = FakeApiServer()
    monkeypatch.setenv("KUBECONFIG", str(_kubeconfig(tmp_path, server.address)))
    yield server
    server.stop()


@pytest.fixture
def system(api: FakeApiServer, rendered: Callable[[str], list[Manifest]]) -> FakeApiServer:
    """A fake API server that has the Deployments of the overlay gke-v5e."""
    for each in rendered("k8s/overlays/gke-v5e"):
        if each["kind"] == "Deployment":
            api.put(each)
    return api
