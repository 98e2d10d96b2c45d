"""`muse deploy check`: an overlay before it is applied, alone and against a cluster's nodes."""

from typing import Any

import pytest

from tests.k8s.conftest import Muse
from tests.k8s.deployment.fake_api import FakeApiServer

LABELS = {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
    "cloud.google.com/gke-tpu-topology": "1x1",
}
LIVE = ("--overlay", "gke-v5e", "--context", "fake")
POOLS = ("text-encoder", "tokenizer", "base", "superres")


def node(pool: str, number: int, chips: int = 1) -> Any:
    labels = {**LABELS, "cloud.google.com/gke-nodepool": f"muse-{pool}"}
    return {
        "kind": "Node",
        "metadata": {"name": f"{pool}-{number}", "labels": labels},
        "status": {"allocatable": {"google.com/tpu": str(chips)}},
    }


@pytest.fixture
def nodes(api: FakeApiServer) -> Any:
    """A cluster with two nodes of one chip in every pool that gke-v5e names."""
    for pool in POOLS:
        for number in range(2):
            api.put(node(pool, number))
    return api


@pytest.mark.parametrize("overlay", ["gke-v5e", "gke-v6e", "gpu", "local-cpu"])
def test_every_overlay_of_the_repository_passes_without_a_cluster(
    overlay: str, muse: Muse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "none")

    ended = muse("check", "--overlay", overlay)

    assert ended.status == 0, ended
    assert ended.out.endswith(" objects, 0 mistakes\n")


def test_more_chips_than_the_shape_of_the_node_are_a_mistake(muse: Muse) -> None:
    ended = muse("check", "--overlay", "tests/k8s/too-many-chips")

    assert ended.status == 1
    assert "Deployment/base: asks for 4 chips, its shape 1x1 has another number\n" in ended.out


def test_what_has_not_the_fields_of_its_schema_is_a_mistake(muse: Muse, tmp_path: Any) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    (tmp_path / "all.yaml").write_text(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: b}, spec: {}}"
    )

    ended = muse("check", "--overlay", str(tmp_path))

    assert ended.status == 1
    assert "Deployment/a: $.spec: " in ended.out


def test_nodes_with_the_chips_pass(nodes: Any, muse: Muse) -> None:
    ended = muse("check", *LIVE)

    assert ended.status == 0, ended
    assert ended.out.startswith(f"context fake, {nodes.address}\n")


def test_a_pool_without_a_node_is_named_by_its_labels(api: FakeApiServer, muse: Muse) -> None:
    for pool in POOLS[1:]:
        for number in range(2):
            api.put(node(pool, number))

    ended = muse("check", *LIVE)

    assert ended.status == 1
    assert "Deployment/text-encoder: no node has " in ended.out
    assert "cloud.google.com/gke-nodepool=muse-text-encoder" in ended.out
    assert "Deployment/base" not in ended.out


def test_nodes_that_hold_fewer_replicas_than_the_overlay_wants_are_named(
    api: FakeApiServer, muse: Muse
) -> None:
    for pool in POOLS:
        api.put(node(pool, 0))

    ended = muse("check", *LIVE)

    assert ended.status == 1
    assert "Deployment/base: 2 replicas request 1 google.com/tpu each, the 1 nodes" in ended.out
    assert "have room for 1" in ended.out


def test_a_node_without_its_chips_is_named(nodes: Any, muse: Muse) -> None:
    for number in range(2):
        nodes.put(node("base", number, chips=0))

    ended = muse("check", *LIVE)

    assert ended.status == 1
    assert "Deployment/base: a pod requests 1 google.com/tpu, the largest node with" in ended.out


def test_who_may_not_list_nodes_is_told_which_role_is_missing(nodes: Any, muse: Muse) -> None:
    nodes.forbidden = {("list", "nodes")}

    ended = muse("check", *LIVE)

    assert ended.error.startswith("muse: you may not list nodes (403): ask for a Role")
