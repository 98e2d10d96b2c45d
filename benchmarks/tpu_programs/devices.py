"""Devices of TPU topologies to compile for, and their memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from tools.description.chips import chip
from training.compilation.topologies import topology_devices


@dataclass(frozen=True, kw_only=True)
class TopologyDevices:
    """The devices of a topology: chips, or the two cores of each chip.

    Attributes:
        topology: libtpu's name of the topology, such as "v5e:1x1".
        devices: All of them.
        memory_bytes: Of each: the chip's published memory, shared by its cores.
    """

    topology: str
    devices: Sequence[jax.Device]
    memory_bytes: float


def devices_of(topology: str) -> TopologyDevices:
    """Returns the devices of a topology.

    Raises:
        ValueError: libtpu is not installed or knows no such topology, or the memory of its chips
            is not known here.
    """
    devices = topology_devices(topology)
    first = devices[0]
    cores = sum(each.coords == first.coords for each in devices)
    memory = chip(topology.split(":")[0]).memory_bytes
    return TopologyDevices(topology=topology, devices=devices, memory_bytes=memory / cores)
