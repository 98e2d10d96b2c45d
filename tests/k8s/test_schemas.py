"""Mistakes that a strict schema sees, seeded one by one."""

from collections.abc import Callable
from typing import Any

import pytest

from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest
from k8s.checks.schemas import schema_mistakes

V5E, TRAINING = "k8s/overlays/gke-v5e", "k8s/training"
EVERYTHING, TLS = "tests/k8s/everything", "tests/k8s/tls"


def box(manifest: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def trainer(manifest: Manifest) -> dict[str, Any]:
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    found: dict[str, Any] = job["template"]["spec"]
    return found


SEEDS: dict[str, tuple[str, str, str, Callable[[Manifest], Any], str]] = {
    "a misspelt field": (
        V5E,
        "Deployment",
        "base",
        lambda each: box(each).update(readinesProbe={}),
        "'readinesProbe' was unexpected",
    ),
    "a field at the wrong depth": (
        V5E,
        "Deployment",
        "base",
        lambda each: each["spec"].update(terminationGracePeriodSeconds=60),
        "'terminationGracePeriodSeconds' was unexpected",
    ),
    "a probe whose port is a name": (
        V5E,
        "Deployment",
        "base",
        lambda each: box(each)["readinessProbe"]["grpc"].update(port="grpc"),
        "'grpc' is not of type 'integer'",
    ),
    "a variable that is a number": (
        V5E,
        "Deployment",
        "base",
        lambda each: box(each)["env"].append({"name": "MUSE_MAX_BATCH_SIZE", "value": 8}),
        "8 is not of type 'string'",
    ),
    "a kind that Kubernetes does not have": (
        V5E,
        "HorizontalPodAutoscaler",
        "orchestrator",
        lambda each: each.update(apiVersion="autoscaling/v2beta2"),
        "has no autoscaling/v2beta2 HorizontalPodAutoscaler",
    ),
    "a misspelt field of a JobSet": (
        TRAINING,
        "JobSet",
        "train-base",
        lambda each: each["spec"].update(failurepolicy={}),
        "'failurepolicy' was unexpected",
    ),
    "a misspelt field of a JobSet's pods": (
        TRAINING,
        "JobSet",
        "train-base",
        lambda each: trainer(each).update(nodeselector={}),
        "'nodeselector' was unexpected",
    ),
    "a threshold that is a number": (
        EVERYTHING,
        "ScaledObject",
        "base",
        lambda each: each["spec"]["triggers"][0]["metadata"].update(threshold=4),
        "4 is not of type 'string'",
    ),
    "a behaviour that no autoscaler has": (
        EVERYTHING,
        "ScaledObject",
        "base",
        lambda each: each["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"].update(
            scaleSideways={}
        ),
        "'scaleSideways' was unexpected",
    ),
    "a misspelt field of a Certificate": (
        TLS,
        "Certificate",
        "base",
        lambda each: each["spec"].update(dnsnames=["base"]),
        "'dnsnames' was unexpected",
    ),
    "a usage of a certificate that there is not": (
        TLS,
        "Certificate",
        "orchestrator",
        lambda each: each["spec"]["usages"].append("clientAuth"),
        "'clientAuth' is not one of",
    ),
    "an issuer of two kinds": (
        TLS,
        "Issuer",
        "authority",
        lambda each: each["spec"].update(selfSigned={}),
        "has too many properties",
    ),
    "a kind of path that the Gateway API does not have": (
        EVERYTHING,
        "HTTPRoute",
        "gateway",
        lambda each: each["spec"]["rules"][0]["matches"][0]["path"].update(type="Prefix"),
        "'Prefix' is not one of",
    ),
    "a mode of mutual TLS that there is not": (
        EVERYTHING,
        "PeerAuthentication",
        "only-mutual-tls",
        lambda each: each["spec"]["mtls"].update(mode="strict"),
        "'strict' is not one of",
    ),
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeded_mistake_is_named(name: str, rendered: Callable[[str], list[Manifest]]) -> None:
    folder, kind, called, seed, message = SEEDS[name]
    manifest = Objects(rendered(folder)).named(kind, called)
    assert manifest is not None
    assert schema_mistakes([manifest]) == []

    seed(manifest)

    found = schema_mistakes([manifest])
    assert any(line.startswith(f"{kind}/{called}: ") and message in line for line in found), found
