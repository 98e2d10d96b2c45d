"""Pods and the nodes that must hold them: shapes of slices, chips, memory."""

import re
from collections.abc import Iterator
from math import prod

from k8s.checks.objects import Workload, amount, at, check_workloads, environment
from k8s.machines import ACCELERATOR, MACHINES, TOPOLOGY, TPU

GPU = "nvidia.com/gpu"
PLATFORMS = {TPU: "tpu", GPU: "cuda"}  # as JAX names them
GPU_ACCELERATOR = "cloud.google.com/gke-accelerator"
FOR_PODS = 0.85  # share of a machine that the system and kubelet leave


@check_workloads()
def chips_come_with_their_shape(each: Workload) -> Iterator[str]:
    """GKE finds nodes with chips by kind and shape, and a pod takes all chips of its node.

    The pods of a JobSet's job are the hosts of one slice, those of other workloads a slice each.
    """
    chips, shape = each.chips(TPU), each.node_selector.get(TOPOLOGY, "")
    if not chips:
        return
    for label in (ACCELERATOR, TOPOLOGY):
        if label not in each.node_selector:
            yield f"asks for {TPU} without the nodeSelector {label}"
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*){1,2}", shape):
        if shape:
            yield f"its shape is {shape!r}, expected one such as 1x1 or 2x2"
        return
    hosts = each.spec.get("parallelism", 1) if each.kind == "JobSet" else 1
    if chips * hosts != prod(map(int, shape.split("x"))):
        together = f"{hosts} hosts x {chips}" if hosts > 1 else chips
        yield f"asks for {together} chips, its shape {shape} has another number"


@check_workloads()
def machines_have_the_chips(each: Workload) -> Iterator[str]:
    """No machine has another number of chips than its kind comes with."""
    for label, resource in ((ACCELERATOR, TPU), (GPU_ACCELERATOR, GPU)):
        kind, chips = each.node_selector.get(label, ""), each.chips(resource)
        if chips and kind in MACHINES and chips not in MACHINES[kind]:
            has = " or ".join(map(str, MACHINES[kind]))
            yield f"asks for {chips} {resource}, a node with {kind} has {has}"


@check_workloads()
def chips_are_used(each: Workload) -> Iterator[str]:
    """A stage uses as many chips as its MUSE_MESH says, one by default; others of the pod idle."""
    chips = each.chips(TPU) or each.chips(GPU)
    if not chips or each.component not in ("stage", "compile-job"):
        return
    for box in each.containers:
        mesh = environment(box).get("MUSE_MESH") or "model=1"
        used = prod(int(axis.partition("=")[2]) for axis in mesh.split(","))
        if used != chips:
            yield f"asks for {chips} chips and uses {used}, by its MUSE_MESH"


@check_workloads()
def taints_are_tolerated(each: Workload) -> Iterator[str]:
    """Nodes with accelerators are tainted."""
    tolerated = {toleration.get("key") for toleration in each.pod.get("tolerations", ())}
    for resource in PLATFORMS:
        if each.chips(resource) and resource not in tolerated:
            yield f"asks for {resource} and does not tolerate its taint"
        if not each.chips(resource) and resource in tolerated:
            yield f"tolerates {resource}, which it does not ask for"


@check_workloads()
def pods_fit_their_node(each: Workload) -> Iterator[str]:
    """A pod that is larger than its node stays Pending."""
    kind = each.node_selector.get(ACCELERATOR) or each.node_selector.get(GPU_ACCELERATOR) or ""
    machine = MACHINES.get(kind, {}).get(each.chips(TPU) or each.chips(GPU))
    if machine is None:
        return
    for resource, has in (("cpu", machine.cpu), ("memory", machine.memory)):
        asked = sum(amount(at(box, f"resources.requests.{resource}", 0)) for box in each.containers)
        if asked > has * FOR_PODS:
            yield (
                f"asks for {asked:.3g} of {resource}, a {machine.name} has {has * FOR_PODS:.3g} "
                "for pods"
            )


@check_workloads("Deployment")
def roll_outs_do_not_wait_for_chips(each: Workload) -> Iterator[str]:
    """A surge pod waits for a chip that the pod it replaces holds."""
    surge = at(each.spec, "strategy.rollingUpdate.maxSurge", "25%")
    if any(map(each.chips, PLATFORMS)) and surge not in (0, "0%"):
        yield f"maxSurge is {surge}, expected 0: there is no chip to spare"


@check_workloads()
def accelerators_do_not_fall_back(each: Workload) -> Iterator[str]:
    """JAX without a chip computes on the CPU, a thousand times slower, if it may."""
    for resource, platform in PLATFORMS.items():
        for box in each.containers if each.chips(resource) else ():
            platforms = environment(box).get("JAX_PLATFORMS") or ""
            if platform not in platforms.split(","):
                yield f"asks for {resource}, expected JAX_PLATFORMS to name {platform}"
