"""Pods and the nodes that must hold them: shapes of slices, chips, memory."""

import re
from collections.abc import Iterator
from math import prod

from k8s.checks.objects import Objects, environment
from k8s.checks.quantities import amount

TPU, GPU = "google.com/tpu", "nvidia.com/gpu"
ACCELERATOR = "cloud.google.com/gke-tpu-accelerator"
TOPOLOGY = "cloud.google.com/gke-tpu-topology"
GPU_ACCELERATOR = "cloud.google.com/gke-accelerator"
# Cores and bytes of the machine with one: ct5lp-hightpu-1t, ct6e-standard-1t, g2-standard-8.
MACHINES = {
    "tpu-v5-lite-podslice": (24, 48e9),
    "tpu-v6e-slice": (44, 176e9),
    "nvidia-l4": (8, 32e9),
}
FOR_PODS = 0.85  # share of a machine that the system and kubelet leave


def chips_come_with_their_shape(objects: Objects) -> Iterator[str]:
    """GKE finds nodes with chips by kind and shape, and a pod takes all chips of its node."""
    for each in objects.workloads():
        chips, selector = each.chips(TPU), each.pod.get("nodeSelector", {})
        if not chips:
            continue
        for label in (ACCELERATOR, TOPOLOGY):
            if label not in selector:
                yield f"{each.title}: asks for {TPU} without the nodeSelector {label}"
        shape = selector.get(TOPOLOGY, "")
        if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*){1,2}", shape):
            if shape:
                yield f"{each.title}: its shape is {shape!r}, expected one such as 1x1 or 2x2"
        elif chips != prod(map(int, shape.split("x"))):
            yield f"{each.title}: asks for {chips} chips, its shape {shape} has another number"


def machines_have_the_chips(objects: Objects) -> Iterator[str]:
    """The shape of a GPU pool is its machine's: one of a kind that MACHINES knows has one chip."""
    for each in objects.workloads():
        kind, chips = each.pod.get("nodeSelector", {}).get(GPU_ACCELERATOR), each.chips(GPU)
        if kind in MACHINES and chips > 1:
            yield f"{each.title}: asks for {chips} {GPU}, a node with one {kind} has 1"


def chips_are_used(objects: Objects) -> Iterator[str]:
    """A stage uses as many chips as its MUSE_MESH says, one by default; others of the pod idle."""
    for each in objects.workloads():
        chips = each.chips(TPU) or each.chips(GPU)
        if not chips or each.component not in ("stage", "compile-job"):
            continue
        for box in each.containers:
            mesh = environment(box).get("MUSE_MESH") or "model=1"
            used = prod(int(axis.partition("=")[2]) for axis in mesh.split(","))
            if used != chips:
                yield f"{each.title}: asks for {chips} chips and uses {used}, by its MUSE_MESH"


def taints_are_tolerated(objects: Objects) -> Iterator[str]:
    """Nodes with accelerators are tainted."""
    for each in objects.workloads():
        tolerated = {toleration.get("key") for toleration in each.pod.get("tolerations", ())}
        for resource in (TPU, GPU):
            if each.chips(resource) and resource not in tolerated:
                yield f"{each.title}: asks for {resource} and does not tolerate its taint"
            if not each.chips(resource) and resource in tolerated:
                yield f"{each.title}: tolerates {resource}, which it does not ask for"


def pods_fit_their_node(objects: Objects) -> Iterator[str]:
    """A pod that is larger than its node stays Pending."""
    for each in objects.workloads():
        selector = each.pod.get("nodeSelector", {})
        kind = selector.get(ACCELERATOR) or selector.get(GPU_ACCELERATOR)
        if kind not in MACHINES:
            continue
        for resource, has in zip(("cpu", "memory"), MACHINES[kind], strict=True):
            asked = sum(
                amount(box.get("resources", {}).get("requests", {}).get(resource, 0))
                for box in each.containers
            )
            if asked > has * FOR_PODS:
                yield (
                    f"{each.title}: asks for {asked:.3g} of {resource}, a node with one {kind} has "
                    f"{has * FOR_PODS:.3g} for pods"
                )


def roll_outs_do_not_wait_for_chips(objects: Objects) -> Iterator[str]:
    """A surge pod waits for a chip that the pod it replaces holds."""
    for each in objects.workloads():
        if each.kind != "Deployment" or not (each.chips(TPU) or each.chips(GPU)):
            continue
        surge = each.spec.get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", "25%")
        if surge not in (0, "0%"):
            yield f"{each.title}: maxSurge is {surge}, expected 0: there is no chip to spare"


def accelerators_do_not_fall_back(objects: Objects) -> Iterator[str]:
    """JAX without a chip computes on the CPU, a thousand times slower, if it may."""
    for each in objects.workloads():
        for resource, platform in ((TPU, "tpu"), (GPU, "cuda")):
            if not each.chips(resource):
                continue
            for box in each.containers:
                said = {entry["name"]: entry.get("value", "") for entry in box.get("env", ())}
                if platform not in said.get("JAX_PLATFORMS", "").split(","):
                    yield (
                        f"{each.title}: asks for {resource}, expected JAX_PLATFORMS to name "
                        f"{platform}"
                    )
