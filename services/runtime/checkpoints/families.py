"""Loading of a checkpoint whose stage serves several families of networks.

A family is a class of networks with one configuration, such as those that this project trains. The
name in config.json says which; without a name it is this project's own.
"""

from collections.abc import Mapping
from pathlib import Path

from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.serialization import (
    OWN_FAMILY,
    Checkpoint,
    Config,
    load_checkpoint,
    read_header,
)


def load_family(
    folder: Path, *, stage: str, config_types: Mapping[str, type[Config]]
) -> Checkpoint[Config]:
    """Reads a checkpoint of one of several families.

    Args:
        folder: Of the checkpoint.
        stage: That it has to be of.
        config_types: Configuration of each family that the stage serves.

    Raises:
        CheckpointError: it is missing, damaged, or of another stage, family or shape.
    """
    family = read_header(folder, stage).get("family", OWN_FAMILY)
    if not isinstance(family, str) or family not in config_types:
        raise CheckpointMismatch(
            f"{folder} holds a {stage} of the family {family!r}: "
            f"this stage serves {' and '.join(config_types)}"
        )
    return load_checkpoint(folder, stage=stage, config_type=config_types[family], family=family)
