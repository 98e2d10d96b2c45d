"""Amounts as Kubernetes writes them: "500m", "16Gi", "1"."""

import re

_FACTORS = {
    "": 1.0,
    "m": 1e-3,
    **{letter: 1e3 ** (place + 1) for place, letter in enumerate(("k", "M", "G", "T", "P"))},
    **{f"{letter}i": 1024.0 ** (place + 1) for place, letter in enumerate("KMGTP")},
}


def amount(quantity: str | int | float) -> float:
    """Returns a quantity as a number: cores, or bytes.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(quantity))
    if found is None or found[2] not in _FACTORS:
        raise ValueError(f"expected an amount such as 500m, 2 or 16Gi, got {quantity!r}")
    return float(found[1]) * _FACTORS[found[2]]
