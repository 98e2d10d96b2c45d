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


def served_digest(digest: str, precision: str, rows_at_once: int = 1) -> str:
    """Returns the digest of a checkpoint, with what else changes the images that it generates.

    Two replicas that serve one checkpoint in different precisions generate different images, and
    products of another shape may round otherwise, so their provenance must differ.

    Args:
        digest: Of the checkpoint.
        precision: That it is served in; named unless it is the checkpoint's own.
        rows_at_once: Decodes that one call of the network computes; named if there are several.
    """
    precisely = "" if precision == CHECKPOINT_PRECISION else f"+{precision}"
    return digest + precisely + ("" if rows_at_once == 1 else f"+rows{rows_at_once}")
