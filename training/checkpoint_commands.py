"""Commands of `python -m training` that make a checkpoint of files, without training."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from training.averaging import average_run
from training.golden import write_goldens
from training.hub_folder import write_hub_folder
from training.merging import merge_adapter

console = Console()


def average(
    *, run: Path, checkpoint: Path, out: Path, decay: float = 0.7, every: int = 5000
) -> None:
    """Averages the snapshots of a run anew, from files, into another checkpoint.

    Parameters
    ----------
    run
        Folder of the run, which keeps its last 16 snapshots.
    checkpoint
        What the run exported: all but the weights is taken from it.
    out
        Folder of the new checkpoint.
    decay
        Weight of the older snapshots when a newer one joins them, 0 to below 1.
    every
        Takes the snapshots of steps that are multiples of this, and the last one.
    """
    steps = average_run(run, checkpoint, out, decay=decay, every=every)
    console.print(f"{out} has the average of steps {', '.join(map(str, steps))}")


def merge(*, checkpoint: Path, adapter: Path, out: Path) -> None:
    """Merges an adapter into the matrices of its checkpoint, for servers that know no adapters.

    Parameters
    ----------
    checkpoint
        Base or superres that the adapter was trained for.
    adapter
        Folder of the adapter, such as OUT/adapter of its run.
    out
        Folder of the new checkpoint.
    """
    merge_adapter(checkpoint, adapter, out)
    console.print(f"{out} is {checkpoint} with {adapter} merged into it")


def golden(*, checkpoints: Path, prompt: str = "a red apple on the left of a lemon") -> None:
    """Writes a golden example beside the weights of each stage, which servers answer at start.

    Parameters
    ----------
    checkpoints
        Folder with the checkpoints of all stages.
    prompt
        What the first of them is asked; each asks the next.
    """
    for file in write_goldens(checkpoints, prompt):
        console.print(f"{file}: {file.stat().st_size} bytes")


def hub(
    *,
    checkpoints: Path,
    out: Path,
    licence: Annotated[str, Parameter(name="--license")],
    name: str = "Muse",
) -> None:
    """Writes the checkpoints of a system and a model card into a folder for the Hugging Face hub.

    Parameters
    ----------
    checkpoints
        Folder with the checkpoints; its README.md, if it has one, becomes the text of the card.
    out
        The new folder, which `hf upload OWNER/NAME OUT` uploads and servers read as well.
    licence
        Of the weights, as the hub calls it, such as apache-2.0, openrail++ or other.
    name
        Title of the card, if there is no README.md.
    """
    stages = write_hub_folder(checkpoints, out, licence=licence, name=name)
    console.print(f"{out} has {', '.join(stages)}: hf upload OWNER/NAME {out}", soft_wrap=True)
