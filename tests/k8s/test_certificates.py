"""Mistakes of certificates, seeded one by one into an overlay whose servers speak TLS."""

from collections.abc import Callable
from typing import Any

import pytest

from k8s.checks.cross_object import mistakes
from k8s.checks.objects import Objects
from k8s.checks.rendering import Manifest

Seed = Callable[[Objects], Any]


def spec(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    found = objects.named(kind, name)
    assert found is not None
    return dict(found)["spec"]


def variables(objects: Objects, name: str) -> list[dict[str, str]]:
    container = spec(objects, "Deployment", name)["template"]["spec"]["containers"][0]
    found: list[dict[str, str]] = container["env"]
    return found


def rename(objects: Objects, name: str, variable: str, to: str) -> None:
    next(each for each in variables(objects, name) if each["name"] == variable)["name"] = to


def accept(objects: Objects, name: str) -> None:
    found = next(each for each in variables(objects, "base") if each["name"] == "MUSE_TLS_CLIENTS")
    found["value"] = name


def speak_plainly_in_a_probe(objects: Objects) -> None:
    container = spec(objects, "Deployment", "gateway")["template"]["spec"]["containers"][0]
    del container["readinessProbe"]["httpGet"]["scheme"]


SEEDS: dict[str, tuple[Seed, str]] = {
    "a Secret that nothing makes": (
        lambda objects: spec(objects, "Certificate", "base").update(secretName="tls-bass"),
        "Deployment/base: mounts the Secret 'tls-base', which no Certificate makes",
    ),
    "a certificate without the name of its Service": (
        lambda objects: spec(objects, "Certificate", "base")["dnsNames"].remove("base"),
        "Deployment/base: its Certificate has not the name of Service/base",
    ),
    "a client that there is not": (
        lambda objects: accept(objects, "spiffe://cluster.local/ns/muse/sa/orchestrater"),
        "Deployment/base: accepts 'spiffe://cluster.local/ns/muse/sa/orchestrater', which",
    ),
    "plain text without a word": (
        lambda objects: rename(objects, "base", "MUSE_TLS_CERT", "MUSE_TLS_CA"),
        "Deployment/base: expected MUSE_TLS_CERT or MUSE_INSECURE, got neither",
    ),
    "TLS that may be left out": (
        lambda objects: variables(objects, "base").append({"name": "MUSE_INSECURE", "value": "1"}),
        "Deployment/base: expected MUSE_TLS_CERT or MUSE_INSECURE, got both",
    ),
    "an issuer that is not there": (
        lambda objects: spec(objects, "Certificate", "base")["issuerRef"].update(name="autority"),
        "Certificate/base: there is no Issuer 'autority'",
    ),
    "an issuer without its key": (
        lambda objects: spec(objects, "Issuer", "authority")["ca"].update(secretName="tls-base"),
        "Issuer/authority: no Certificate of an authority makes the Secret 'tls-base'",
    ),
    "a probe by HTTP that speaks plain text": (
        speak_plainly_in_a_probe,
        "Deployment/gateway: its readinessProbe speaks HTTP, which its server does not",
    ),
    "a probe that would have to speak TLS": (
        lambda objects: rename(objects, "base", "MUSE_HEALTH_PORT", "MUSE_HEALTH_PORTS"),
        "Deployment/base: its startupProbe asks port 9465, where nothing answers in plain text",
    ),
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeded_mistake_is_named(name: str, rendered: Callable[[str], list[Manifest]]) -> None:
    objects = Objects(rendered("tests/k8s/tls"))
    seed, message = SEEDS[name]
    assert mistakes(objects.all) == []

    seed(objects)

    found = mistakes(objects.all)
    assert any(message in line for line in found), found


def test_a_component_of_tls_takes_back_plain_text(
    rendered: Callable[[str], list[Manifest]],
) -> None:
    plain, secure = (
        Objects(rendered(folder)) for folder in ("k8s/overlays/gke-v5e", "tests/k8s/tls")
    )

    for name in ("gateway", "orchestrator", "text-encoder", "tokenizer", "base", "superres"):
        assert "MUSE_INSECURE" in {each["name"] for each in variables(plain, name)}
        assert "MUSE_INSECURE" not in {each["name"] for each in variables(secure, name)}
