"""The files of a checkpoint as JSON, configurations and tensors: read whole, or refused.

A file may have been cut, mixed up or made by another program, so whatever is wrong with it is an
error of the checkpoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import ml_dtypes  # noqa: F401  # so that numpy knows bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from services.runtime.checkpoints.errors import CheckpointMismatch

RECORD_FILE = "training.json"
MAX_NUMBER = 2**31 - 1  # of a configuration: JAX counts axes in 32 bits by default

Config = TypeVar("Config")


def read_object(file: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointMismatch: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a ValueError if it is no UTF-8, too
        raise CheckpointMismatch(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointMismatch(f"{file}: expected a JSON object, got {type(content).__name__}")
    return content


def read_record(folder: Path) -> dict[str, Any]:
    """Reads the record of a training run; empty if the folder has none.

    Raises:
        CheckpointMismatch: the file cannot be read, or is no JSON object.
    """
    file = folder / RECORD_FILE
    return read_object(file) if file.is_file() else {}


def config_of(config_type: type[Config], fields: Mapping[str, Any], source: Path) -> Config:
    """Returns the configuration that a file describes.

    Args:
        config_type: A dataclass whose fields are int, bool, float or tuple[int, ...].
        fields: Value of each field.
        source: The file, for the message.

    Raises:
        CheckpointMismatch: a field is missing, unknown, of another type or out of range.
    """
    try:
        config = config_type(**fields)
        for name, kind in get_type_hints(config_type).items():
            _check_field(name, getattr(config, name), kind)
    except (TypeError, ValueError) as error:
        raise CheckpointMismatch(
            f"{source} does not describe a {config_type.__name__}: {error}"
        ) from error
    return config


def _check_field(name: str, value: Any, kind: Any) -> None:
    several = get_origin(kind) is tuple
    number = int if several else kind
    for each in value if several else (value,):
        if type(each) is not number and (type(each), number) != (int, float):
            raise TypeError(f"{name} must be {getattr(kind, '__name__', kind)}, got {value!r}")
        if each > MAX_NUMBER:
            raise ValueError(f"{name} must be at most {MAX_NUMBER}, got {value}")


def read_tensors(file: Path, *, prefixes: tuple[str, ...] = ("",)) -> dict[str, np.ndarray]:
    """Reads the tensors of a safetensors file whose names begin with one of the prefixes.

    Raises:
        CheckpointMismatch: the file cannot be read, or has numbers of a type that is not read.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:
            names = [name for name in tensors.keys() if name.startswith(prefixes)]  # noqa: SIM118
            for name in names:
                _check_dtype(file, name, tensors.get_slice(name).get_dtype())
            return {name: tensors.get_tensor(name) for name in names}
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointMismatch(
            f"{file} cannot be read: {error}; it may be truncated, fetch it again"
        ) from error


def _check_dtype(file: Path, tensor: str, dtype: str) -> None:
    if dtype.startswith(("F8", "F4", "F6")):
        raise CheckpointMismatch(
            f"{file} cannot be read: {tensor} is of the type {dtype}, expected float32, float16 or "
            "bfloat16, as floats of 8 bits or fewer are not read; take the checkpoint in bfloat16, "
            "which --weights int8 makes as small"
        )
