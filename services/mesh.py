"""The device mesh of a masked transformer: the name of its axis, and the --mesh flag. No JAX."""

MODEL_AXIS = "model"


def parse_mesh(mesh: str) -> int:
    """Returns the number of devices of a mesh such as "model=4"; 1 of an empty string.

    Raises:
        ValueError: the axis is not "model", or its size is no positive whole number.
    """
    if not mesh.strip():
        return 1
    axis, _, count = (part.strip() for part in mesh.partition("="))
    if axis != MODEL_AXIS:
        raise ValueError(
            f"mesh: expected {MODEL_AXIS}=N, such as {MODEL_AXIS}=4, got the axis {axis!r}"
        )
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(
            f"mesh: expected {MODEL_AXIS}=N with N a whole number of devices, got {count!r} for N"
        )
    return int(count)
