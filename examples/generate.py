"""Saves two pictures of a prompt: python examples/generate.py "a fox on blue"."""

import argparse
from pathlib import Path

from muse_client import DEFAULT_ADDRESS, MuseClient, Sampling

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("prompt")
parser.add_argument("--address", default=DEFAULT_ADDRESS, help="of the orchestrator")
parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

with MuseClient(arguments.address, timeout_s=60) as muse:
    images = muse.generate(
        arguments.prompt,
        seed=7,  # picture i has seed 7 + i, and is the picture which that seed gives alone
        count=2,
        base=Sampling(steps=12),  # parameters that are not set keep the checkpoint's defaults
    )
for image in images:
    file = arguments.out / f"{image.seed}.png"
    file.write_bytes(image.png)  # `image.image` is the same picture for Pillow
    print(f"{file}: {image.image.width} x {image.image.height} px after {image.wall_s:.2f} s")
