"""The average of a run's snapshots by another decay or interval than the run's own, from files.

Source: Muse, section 3: checkpoints of every 5000 steps, averaged with decay 0.7.
"""

import json
import shutil
from pathlib import Path

from services.masked.adapters import FOLDER as ADAPTERS
from services.runtime.checkpoints.golden import GOLDEN_FILE
from services.runtime.checkpoints.serialization import (
    WEIGHTS_FILE,
    codebook_fingerprint,
    parameters_fingerprint,
    round_to_bfloat16,
)
from services.runtime.checkpoints.tensors import LazyTensors, write_tensors
from services.text_encoder.vocabulary import FILE_NAME
from services.tokenizer.model import CODEBOOK
from training.snapshots import Snapshots


def average_run(run: Path, checkpoint: Path, out: Path, *, decay: float, every: int) -> list[int]:
    """Writes a checkpoint like one that a run exported, of another average.

    Args:
        run: Folder of the run, with its snapshots.
        checkpoint: What the run exported; all but the weights, and what belongs to them, is
            taken from it.
        out: Folder of the new checkpoint.
        decay: Weight of the older snapshots when a newer one joins them, 0 to below 1.
        every: Takes the snapshots of multiples of this, and the last one.

    Returns:
        The steps of the snapshots that were averaged.

    Raises:
        FileNotFoundError: there is no checkpoint, or there are no snapshots.
        ValueError: decay or every is out of range, or the checkpoint is the folder to write.
    """
    if not 0 <= decay < 1 or every < 1:
        raise ValueError(
            f"expected a decay of 0 to below 1 and an interval of at least 1, got {decay} and "
            f"{every}"
        )
    if out.resolve() == checkpoint.resolve():
        raise ValueError(f"expected another folder to write than {checkpoint}, which is read")
    header = json.loads((checkpoint / "config.json").read_text())
    if "stage" not in header:
        raise ValueError(f"expected the checkpoint of a stage in {checkpoint}, got an adapter's")
    snapshots = Snapshots(run / "snapshots")
    averaged = snapshots.average(decay, every=every)
    steps = snapshots.averaged_steps(every)
    parameters = round_to_bfloat16(_exported(header["stage"], averaged))
    shutil.copytree(
        checkpoint,
        out,
        ignore=shutil.ignore_patterns(WEIGHTS_FILE, GOLDEN_FILE, ADAPTERS),
        dirs_exist_ok=True,
    )
    header["digest"] = write_tensors(out / WEIGHTS_FILE, parameters)
    if header["stage"] == "tokenizer":
        header["fingerprint"]["codebook"] = codebook_fingerprint(parameters[CODEBOOK])
    if header["stage"] == "text_encoder":
        vocabulary = (out / FILE_NAME).read_bytes()
        encoder = parameters_fingerprint("t5", parameters, vocabulary)
        header["fingerprint"]["encoder"] = encoder
    (out / "config.json").write_text(json.dumps(header, indent=2) + "\n")
    record = json.loads((checkpoint / "training.json").read_text())
    record |= {"averaged_steps": steps, "average_decay": decay}
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    return steps


def _exported(stage: str, params: LazyTensors) -> LazyTensors:
    """Returns the parameters that a checkpoint has: of a text encoder neither decoder nor heads."""
    if stage != "text_encoder":
        return params
    prefix = "encoder."
    shapes = {
        name.removeprefix(prefix): shape
        for name, shape in params.shapes.items()
        if name.startswith(prefix)
    }
    return LazyTensors(shapes, lambda name: params[prefix + name])
