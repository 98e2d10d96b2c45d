"""A small overlay of the tests' own: one Deployment and its Service, and a server of health."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Manifests = list[dict[str, Any]]
SERVER = Path(__file__).with_name("pod.py")


def probe(service: str, failures: int) -> dict[str, Any]:
    return {
        "grpc": {"port": 50050, "service": service},
        "periodSeconds": 0.2,
        "timeoutSeconds": 1,
        "failureThreshold": failures,
    }


@pytest.fixture
def manifests() -> Callable[..., Manifests]:
    """Returns objects whose pod behaves as words for tests/tools/local/pod.py say."""

    def build(*words: str, pre_stop_s: float = 0, grace_s: float = 5) -> Manifests:
        labels = {"app.kubernetes.io/name": "orchestrator"}
        container = {
            "name": "server",
            "image": "muse-orchestrator:0.1.0",
            "command": ["python", str(SERVER)],
            "args": [*words],
            "env": [
                {"name": "MUSE_HOST", "value": "0.0.0.0"},
                {"name": "MUSE_PORT", "value": "50050"},
            ],
            "ports": [{"name": "grpc", "containerPort": 50050}],
            "startupProbe": probe("liveness", 100),
            "readinessProbe": probe("readiness", 2),
            "livenessProbe": probe("liveness", 2),
            "lifecycle": {"preStop": {"sleep": {"seconds": pre_stop_s}}},
        }
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "orchestrator", "namespace": "muse"},
            "spec": {
                "replicas": 1,
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": [container],
                        "terminationGracePeriodSeconds": grace_s,
                    },
                },
            },
        }
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "orchestrator"},
            "spec": {"selector": labels, "ports": [{"port": 50050, "targetPort": "grpc"}]},
        }
        return copy.deepcopy([deployment, service])

    return build
