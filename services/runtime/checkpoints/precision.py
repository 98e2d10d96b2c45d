"""In which precision a stage keeps its weights and computes; pictures differ with it. No JAX."""

from typing import Literal, get_args

Weights = Literal["full", "int8"]
"""How the matrices of the blocks are kept: as all other weights, or as int8 with a scale."""

CHECKPOINT_PRECISION = "float32"  # computes with the numbers of the checkpoint as they are


def check_weights(weights: str) -> None:
    """Checks what a caller asks for.

    Raises:
        ValueError: there is no such way to keep weights.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights: expected {' or '.join(get_args(Weights))}, got {weights!r}")


def precision_name(dtype: str, weights: Weights) -> str:
    """Names a precision, such as "float32", "bfloat16" or "int8+bfloat16".

    Args:
        dtype: Of the arithmetic, and of the weights that are kept in full.
        weights: How the matrices of the blocks are kept.
    """
    return dtype if weights == "full" else f"{weights}+{dtype}"


def served_digest(digest: str, precision: str) -> str:
    """Returns the name of a checkpoint as it is served: its digest, and what it was reduced to.

    Two replicas of one checkpoint in different precision paint different pictures, so a receipt
    must not call them the same.

    Args:
        digest: "sha256:" and 64 hex digits.
        precision: As `precision_name` has it.
    """
    return digest if precision == CHECKPOINT_PRECISION else f"{digest}+{precision}"
