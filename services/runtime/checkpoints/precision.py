"""Names of the precisions that a stage serves in; images differ between them. No JAX."""

from typing import Literal, get_args

Weights = Literal["full", "int8"]
"""Storage of the blocks' matrices: like all other weights, or as int8 with a scale."""
Precision = Literal["float32", "bfloat16"]
"""Type of weights and of the factors of matrix products."""

CHECKPOINT_PRECISION = "float32"  # arithmetic on the unchanged numbers of the checkpoint


def check_weights(weights: str) -> None:
    """Checks the value of a setting.

    Raises:
        ValueError: the value is not one of `Weights`.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights: expected {' or '.join(get_args(Weights))}, got {weights!r}")


def precision_name(dtype: str, weights: Weights) -> str:
    """Returns the name of a precision, such as "float32", "bfloat16" or "int8+bfloat16"."""
    return dtype if weights == "full" else f"{weights}+{dtype}"


def served_digest(digest: str, precision: str) -> str:
    """Returns the digest of a checkpoint, with the precision unless it is the checkpoint's own.

    Two replicas that serve one checkpoint in different precisions generate different images, so
    their provenance must differ.
    """
    return digest if precision == CHECKPOINT_PRECISION else f"{digest}+{precision}"
