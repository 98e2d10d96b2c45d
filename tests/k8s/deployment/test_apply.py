"""`muse deploy apply` against a fake API server."""

from typing import Any

import pytest

from k8s.checks.objects import Objects

V5E = ("--overlay", "gke-v5e")


def test_everything_is_applied_namespace_first_and_a_second_time_changes_nothing(
    api: Any, muse: Any, rendered: Any
) -> None:
    ended = muse("apply", *V5E)

    assert ended.status == 0, ended
    assert ended.out.startswith(f"context fake, {api.address}, namespace muse\n")
    wanted = {
        f"{each['kind']}/{each['metadata']['name']}" for each in rendered("k8s/overlays/gke-v5e")
    }
    assert {name for _, name in api.changed} == wanted
    assert {manager for manager, _ in api.changed} == {"muse"}
    assert api.changed[0] == ("muse", "Namespace/muse")
    assert all(f"{name}: created\n" in ended.out for name in wanted)

    api.changed.clear()
    again = muse("apply", *V5E)
    assert again.status == 0, again
    assert api.changed == []
    assert all(f"{name}: unchanged\n" in again.out for name in wanted)


def test_a_dry_run_changes_nothing(api: Any, muse: Any) -> None:
    ended = muse("apply", *V5E, "--dry-run")

    assert ended.status == 0, ended
    assert "Namespace/muse: created\n" in ended.out
    assert "Deployment/base: cannot be tried yet\n" in ended.out
    assert ended.out.endswith("tried only: nothing was changed\n")
    assert api.changed == []


def test_what_another_has_set_is_a_conflict_with_its_field_and_manager(
    system: Any, muse: Any
) -> None:
    system.object("deployments", "muse", "base")
    changed = {"spec": {"revisionHistoryLimit": 9}}
    system.take("deployments", "muse", "base", changed, "kubectl-edit")

    ended = muse("apply", *V5E)

    assert ended.status == 1
    assert (
        "Deployment/base: .spec.revisionHistoryLimit was set by kubectl-edit to another value"
        in ended.out
    )
    assert "--force-conflicts" in ended.out
    assert ended.error == "muse: the cluster refuses 1 of the objects, and nothing was changed"
    assert system.changed == [("kubectl-edit", "Deployment/base")]


def test_a_conflict_is_taken_over_if_that_is_said(system: Any, muse: Any) -> None:
    system.take("deployments", "muse", "base", {"spec": {"replicas": 9}}, "kubectl-edit")

    assert muse("apply", *V5E, "--force-conflicts").status == 0
    assert system.object("deployments", "muse", "base")["spec"]["replicas"] == 2
    assert muse("apply", *V5E).status == 0  # nobody else has it any more


def test_what_is_not_admitted_is_named_and_nothing_is_changed(system: Any, muse: Any) -> None:
    system.admission = lambda each: (
        "violates PodSecurity" if each["metadata"]["name"] == "superres" else ""
    )
    system.take("deployments", "muse", "base", {"spec": {"paused": True}}, "somebody")
    system.changed.clear()

    ended = muse("apply", *V5E)

    assert ended.status == 1
    assert "Deployment/superres: the cluster does not admit it (403)" in ended.out
    assert "violates PodSecurity" in ended.out
    assert system.changed == []


def test_who_may_not_change_something_is_told_verb_resource_and_namespace(
    system: Any, muse: Any
) -> None:
    system.forbidden = {("patch", "deployments")}

    ended = muse("apply", *V5E)

    assert ended.status == 1
    assert (
        "Deployment/base: you may not patch deployments.apps in namespace muse (403)" in ended.out
    )
    assert ended.error == "muse: the cluster refuses 5 of the objects, and nothing was changed"


def test_a_kind_that_the_cluster_does_not_know_is_named(api: Any, muse: Any) -> None:
    del api.kinds["autoscaling/v2"]

    ended = muse("apply", *V5E)

    assert ended.status == 1
    assert (
        "HorizontalPodAutoscaler/orchestrator: the cluster does not know autoscaling/v2 "
        "HorizontalPodAutoscaler: install what defines it"
    ) in ended.out
    assert api.changed == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "compile-base",
            "Job/compile-base: is still there, with other settings, and a job cannot be changed: "
            "`kubectl -n muse delete job compile-base`",
        ),
        (
            "muse-compiled",
            "PersistentVolume/muse-compiled: is still there, with other settings, and a "
            "persistentvolume cannot be changed: `kubectl delete persistentvolume muse-compiled`",
        ),
    ],
)
def test_what_cannot_be_changed_is_named_with_what_to_do(
    name: str, said: str, system: Any, muse: Any
) -> None:
    system.invalid = {name: "spec: Invalid value: field is immutable"}

    ended = muse("apply", *V5E)

    assert ended.status == 1
    assert said in ended.out


def test_a_definition_of_a_kind_is_waited_for(api: Any, muse: Any, tmp_path: Any) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    (tmp_path / "all.yaml").write_text(
        """
apiVersion: fruit.example/v1
kind: Fig
metadata: {name: fig, namespace: garden}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tree, namespace: garden}
spec:
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "d:1"}]}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: figs.fruit.example}
spec: {group: fruit.example}
---
apiVersion: v1
kind: Namespace
metadata: {name: garden}
"""
    )
    ended = muse("apply", "--overlay", str(tmp_path), "--dry-run")
    assert ended.status == 0, ended
    assert "Fig/fig: cannot be tried yet\n" in ended.out

    api.defines = ("fruit.example/v1", [("figs", "Fig", True)])
    ended = muse("apply", "--overlay", str(tmp_path))
    assert ended.status == 0, ended
    assert [name for _, name in api.changed][:2] == [
        "Namespace/garden",
        "CustomResourceDefinition/figs.fruit.example",
    ]
    assert ("muse", "Fig/fig") in api.changed


def test_an_overlay_with_more_chips_than_its_shape_is_not_sent(api: Any, muse: Any) -> None:
    ended = muse("apply", "--overlay", "tests/k8s/too-many-chips")

    assert ended.status == 1
    assert "Deployment/base: asks for 4 chips, its shape 1x1 has another number" in ended.error
    assert api.changed == []


def test_an_overlay_of_something_else_than_pods_is_refused(
    api: Any, muse: Any, tmp_path: Any
) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    (tmp_path / "all.yaml").write_text(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: b}, spec: {}}"
    )

    ended = muse("apply", "--overlay", str(tmp_path))

    assert "some object lacks what every pod has" in ended.error


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_time_to_wait_that_is_none_is_refused(api: Any, muse: Any, seconds: str) -> None:
    ended = muse("apply", *V5E, "--timeout-s", seconds)

    assert ended.error.startswith("muse: timeout_s: expected more than 0, got")


def test_without_waiting_a_roll_out_is_not_looked_at(api: Any, muse: Any, rendered: Any) -> None:
    api.stuck = {"base"}

    assert muse("apply", *V5E, "--no-wait").status == 0
    assert Objects(rendered("k8s/overlays/gke-v5e")).named("Deployment", "base") is not None
    assert api.object("deployments", "muse", "base")["status"]["availableReplicas"] == 0
