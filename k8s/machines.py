"""Nodes with chips: the machines of GKE, and the TPU slices that several of them make.

Source: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

TPU = "google.com/tpu"  # the resource
ACCELERATOR = "cloud.google.com/gke-tpu-accelerator"  # labels of its nodes
TOPOLOGY = "cloud.google.com/gke-tpu-topology"


@dataclass(frozen=True)
class Machine:
    """The machine of a node.

    Attributes:
        name: Machine type, such as "ct5lp-hightpu-4t".
        cpu: Cores.
        memory: Bytes.
    """

    name: str
    cpu: int
    memory: float


# By accelerator, as GKE labels nodes, then by chips of one machine.
MACHINES: Mapping[str, Mapping[int, Machine]] = {
    "tpu-v4-podslice": {4: Machine("ct4p-hightpu-4t", 240, 407e9)},
    "tpu-v5-lite-podslice": {
        1: Machine("ct5lp-hightpu-1t", 24, 48e9),
        4: Machine("ct5lp-hightpu-4t", 112, 192e9),
        8: Machine("ct5lp-hightpu-8t", 224, 384e9),
    },
    "tpu-v5p-slice": {4: Machine("ct5p-hightpu-4t", 208, 448e9)},
    "tpu-v6e-slice": {
        1: Machine("ct6e-standard-1t", 44, 176e9),
        4: Machine("ct6e-standard-4t", 180, 720e9),
        8: Machine("ct6e-standard-8t", 180, 1440e9),
    },
    "nvidia-l4": {1: Machine("g2-standard-8", 8, 32e9)},
}
_PLANES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
    *("4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16"),
)
TOPOLOGIES: Mapping[str, tuple[str, ...]] = {
    "tpu-v4-podslice": _CUBES,
    "tpu-v5-lite-podslice": _PLANES,
    "tpu-v5p-slice": _CUBES,
    "tpu-v6e-slice": _PLANES,
}
CHIPS_A_HOST = 4  # of a slice of several hosts, for every accelerator above


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A TPU slice: the hosts of one node pool, whose chips are one torus or a part of it.

    Attributes:
        accelerator: As GKE labels its nodes, such as "tpu-v5-lite-podslice".
        topology: Chips in each direction, such as "4x4".
        hosts: Nodes of the slice.
        chips: Chips of each host.
        machine: Each host.
    """

    accelerator: str
    topology: str
    hosts: int
    chips: int
    machine: Machine


def tpu_slice(accelerator: str, hosts: int, topology: str | None = None) -> Slice:
    """Returns the slice of a number of hosts.

    Args:
        accelerator: One of TOPOLOGIES.
        hosts: At least 1.
        topology: None takes the one of TOPOLOGIES that has the hosts; for one host, four chips.

    Raises:
        ValueError: the accelerator or the topology is unknown, or has another number of hosts.
    """
    if accelerator not in TOPOLOGIES:
        raise ValueError(
            f"accelerator: expected one of {', '.join(TOPOLOGIES)}, got {accelerator!r}"
        )
    known = {each: _shape(each) for each in TOPOLOGIES[accelerator]}
    if topology is None:
        by_hosts = {count: name for name, (count, _) in known.items()}
        if hosts not in by_hosts:
            raise ValueError(
                f"hosts: expected one of {', '.join(map(str, sorted(by_hosts)))} for "
                f"{accelerator}, got {hosts}"
            )
        topology = by_hosts[hosts]
    if topology not in known:
        raise ValueError(
            f"topology: expected one of {', '.join(known)} for {accelerator}, got {topology!r}"
        )
    expected, chips = known[topology]
    if hosts != expected:
        raise ValueError(
            f"hosts: expected {expected} for the topology {topology}, at {chips} chips a host, "
            f"got {hosts}"
        )
    return Slice(
        accelerator=accelerator,
        topology=topology,
        hosts=hosts,
        chips=chips,
        machine=MACHINES[accelerator][chips],
    )


def _shape(topology: str) -> tuple[int, int]:
    """Returns the hosts of a topology, and the chips of each."""
    total = prod(map(int, topology.split("x")))
    chips = min(total, CHIPS_A_HOST)
    return total // chips, chips
