"""The adapters of a server: the folders that they lie in, and the checks before they are served."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.runtime.checkpoints.adapters import Adapter, check_belongs, load_adapter
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.serialization import Checkpoint

FOLDER = "adapters"  # of a checkpoint: one folder an adapter, of its name
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def adapter_folders(checkpoint: Path, named: Sequence[str] = ()) -> dict[str, Path]:
    """Returns the folders of adapters by name: those of a checkpoint, then those that flags name.

    Args:
        checkpoint: Folder of the checkpoint; a subfolder `adapters/NAME` holds an adapter.
        named: Further ones as NAME=FOLDER.

    Raises:
        ValueError: an argument is not NAME=FOLDER, or a name is malformed or there twice.
    """
    within = checkpoint / FOLDER
    found = sorted(within.iterdir()) if within.is_dir() else []
    # Hidden folders are those of tools: of a mounted ConfigMap, of a copy in progress.
    folders = {each.name: each for each in found if each.is_dir() and each.name[0] != "."}
    for word in named:
        name, _, folder = word.partition("=")
        if not folder:
            raise ValueError(f"adapter: expected NAME=FOLDER, such as fox=runs/fox, got {word!r}")
        if name in folders:
            raise ValueError(
                f"adapter: expected one folder of the name {name!r}, got {folders[name]} and "
                f"{folder}"
            )
        folders[name] = Path(folder)
    for name, each in folders.items():
        if NAME.fullmatch(name) is None:
            raise ValueError(
                f"adapter: expected a name of at most 64 letters, digits, dots, hyphens and "
                f"underscores that begins with a letter or digit, got {name!r} for {each}"
            )
    return folders


def load_adapters(
    folders: Mapping[str, Path], stage: str, checkpoint: Checkpoint[Any]
) -> dict[str, Adapter]:
    """Reads the adapters of a stage's checkpoint, by name.

    Raises:
        CheckpointNotFound: a folder holds no adapter.
        CheckpointMismatch: an adapter is of another stage or checkpoint, or is damaged.
    """
    adapters = {name: load_adapter(folder) for name, folder in folders.items()}
    for adapter in adapters.values():
        if adapter.stage != stage:
            raise CheckpointMismatch(
                f"{adapter.folder} is an adapter of {adapter.stage}: expected one of {stage}"
            )
        check_belongs(adapter, checkpoint)
    return adapters
