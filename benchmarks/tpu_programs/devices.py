"""Devices of TPU topologies to compile for, and their memory."""

from dataclasses import dataclass

import jax

from tools.description.chips import chip
from training.compilation.topologies import topology_devices


@dataclass(frozen=True, kw_only=True)
class TopologyDevice:
    """A device of a topology: a chip, or one of a chip's two cores.

    Attributes:
        topology: libtpu's name of the topology, such as "v5e:1x1".
        device: Its first device.
        memory_bytes: Of the device: the chip's published memory, shared by its cores.
    """

    topology: str
    device: jax.Device
    memory_bytes: float


def device_of(topology: str) -> TopologyDevice:
    """Returns the first device of a topology.

    Raises:
        ValueError: libtpu is not installed or knows no such topology, or the memory of its chips
            is not known here.
    """
    devices = topology_devices(topology)
    first = devices[0]
    cores = sum(each.coords == first.coords for each in devices)
    memory = chip(topology.split(":")[0]).memory_bytes
    return TopologyDevice(topology=topology, device=first, memory_bytes=memory / cores)
