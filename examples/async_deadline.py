"""Generates pictures of several prompts at once, each before a deadline, and retries refused ones.

python examples/async_deadline.py "a fox on blue" "an owl on red" --seconds 10
"""

import argparse
import asyncio
import time
from pathlib import Path

from muse_client import (
    DEFAULT_ADDRESS,
    AsyncMuseClient,
    DeadlineExceeded,
    MuseError,
    Overloaded,
    Sampling,
)


async def generate(address: str, prompt: str, seconds: float) -> bytes:
    """Returns a PNG file of the prompt.

    Raises:
        DeadlineExceeded: there was no picture in time.
        Overloaded: the servers cannot finish in time, however often the call is repeated.
    """
    ends_s = time.monotonic() + seconds
    while True:
        # The deadline travels with the call: servers refuse at once what they cannot finish in
        # time, and stop working on a call whose time is over.
        async with AsyncMuseClient(address, timeout_s=ends_s - time.monotonic()) as muse:
            try:
                # With `min_steps` the base takes fewer steps rather than refuse.
                (image,) = await muse.generate(prompt, base=Sampling(steps=24, min_steps=8))
                return image.png
            except Overloaded as error:
                pause_s = error.retry_after_s or 1.0
                if time.monotonic() + pause_s >= ends_s:
                    raise
                print(f"{prompt}: overloaded, again in {pause_s:.1f} s")
                await asyncio.sleep(pause_s)


async def save(address: str, prompt: str, seconds: float, file: Path) -> None:
    """Writes the picture of a prompt, or prints why there is none."""
    try:
        png = await generate(address, prompt, seconds)
    except DeadlineExceeded:
        print(f"{prompt}: no picture within {seconds} s")
    except MuseError as error:  # every other failure; each has a class of its own
        print(f"{prompt}: {error}")
    else:
        await asyncio.to_thread(file.write_bytes, png)
        print(f"{prompt}: {file}")


async def main() -> None:
    """Runs all prompts at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--seconds", type=float, default=30.0, help="deadline of each picture")
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="of the orchestrator")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    async with asyncio.TaskGroup() as group:
        for index, prompt in enumerate(arguments.prompts):
            file = arguments.out / f"{index}.png"
            group.create_task(save(arguments.address, prompt, arguments.seconds, file))


asyncio.run(main())
