"""What the servers of base and superres can be told besides. Imports no JAX."""

from dataclasses import dataclass

from services.runtime.checkpoints.precision import Weights
from services.runtime.server.settings import StageSettings

AXIS = "model"


@dataclass(frozen=True, kw_only=True)
class MaskedSettings(StageSettings):
    """Settings of base and superres.

    Attributes:
        mesh: Devices of this host to spread the network over, such as "model=4": each has a fourth
            of the heads and of the weights. By default one device has it all.
        weights: int8 keeps the matrices of the blocks in a byte a number.
    """

    mesh: str = ""
    weights: Weights = "full"

    @property
    def shards(self) -> int:
        """How many devices the network is spread over.

        Raises:
            ValueError: the mesh is not one.
        """
        return parse_mesh(self.mesh)


def parse_mesh(mesh: str) -> int:
    """Returns the number of devices of a mesh such as "model=4"; 1 of an empty one.

    Raises:
        ValueError: it has another axis, or no whole number of devices.
    """
    if not mesh.strip():
        return 1
    axis, _, count = (part.strip() for part in mesh.partition("="))
    if axis != AXIS:
        raise ValueError(f"mesh: expected {AXIS}=N, such as {AXIS}=4, got the axis {axis!r}")
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(
            f"mesh: expected {AXIS}=N with N a whole number of devices, got {count!r} for N"
        )
    return int(count)
