"""Prints the events of a request, saves previews: python examples/stream_progress.py "a fox"."""

import argparse
from pathlib import Path

from muse_client import (
    DEFAULT_ADDRESS,
    Accepted,
    Done,
    GeneratedImage,
    MuseClient,
    Progress,
    RequestWarning,
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("prompt")
parser.add_argument("--address", default=DEFAULT_ADDRESS, help="of the orchestrator")
parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

with MuseClient(arguments.address) as muse:
    # Each preview costs a call of the tokenizer, so ask for every fourth step only. To cancel the
    # request, leave the loop: closing the generator ends the call.
    for event in muse.events(arguments.prompt, preview_every=4):
        match event:
            case Accepted(seed=seed):
                print(f"accepted, seed {seed}")
            case RequestWarning(message=message):
                print(f"warning: {message}")
            case Progress(stage=stage, step=step, total=total, preview=preview):
                print(f"{stage} {step}/{total}")
                if preview is not None:
                    (arguments.out / f"{stage}-{step}.png").write_bytes(preview.png)
            case GeneratedImage(png=png, timings=timings):
                (arguments.out / "final.png").write_bytes(png)
                for timing in timings:
                    print(f"{timing.stage}: {timing.queue_s:.3f} s queue, {timing.compute_s:.3f} s")
            case Done(total_s=total_s):
                print(f"done after {total_s:.2f} s")
