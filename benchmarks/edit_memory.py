"""Memory that the orchestrator takes for the largest edits there may be.

`python -m benchmarks.edit_memory` (`--side-px 512` to see that it runs). Starts the five servers
and sends edits of noise, which no file format makes smaller: a panorama four times as wide as its
picture, of as many pixels as a result may have; a picture of as many, inpainted; as many of these
at once as may be under way; and twice as many, of which half wait or are refused. The peak is the
kernel's, of the orchestrator's process and of those that decode pictures, added up although they
need not come at the same time (Linux alone tells it), each beginning from what it had.
"""

import io
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from cyclopts import App
from muse_client import MuseClient, Overloaded
from PIL import Image

from benchmarks.measuring import conditions
from services.orchestrator.edits.limits import MAX_EDITED_PIXELS, MAX_PIXELS
from tools.local import local_stack

MASKED_PX = 64  # nearly all of the result is the noise that came
LARGEST_SIDE_PX = 4096
AT_ONCE = MAX_EDITED_PIXELS // MAX_PIXELS

app = App(help=__doc__)


def noise(side: int) -> bytes:
    """Returns a PNG that is as large as its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    return _png(pixels)


def corner_mask(side: int) -> bytes:
    """Returns a mask of one corner."""
    mask = np.zeros((side, side), np.uint8)
    mask[:MASKED_PX, :MASKED_PX] = 255
    return _png(mask)


def _png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=0)
    return content.getvalue()


def family(process_id: int) -> list[Path]:
    """Returns the folders in /proc of a process and its children."""
    lists = Path(f"/proc/{process_id}/task").glob("*/children")
    children = [child for each in lists for child in each.read_text().split()]
    return [Path("/proc", str(each)) for each in (process_id, *children)]


def peak_mib(process_id: int) -> int:
    """Returns the most memory that a process and its children have held since `forget_peak`."""
    peaks = [
        re.findall(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
        for process in family(process_id)
    ]
    return round(sum(int(kib) for (kib,) in peaks) / 1024)


def forget_peak(process_id: int) -> None:
    """Has the kernel count the peaks anew, from what each process holds now."""
    for process in family(process_id):
        (process / "clear_refs").write_text("5")


def answered(edit: Callable[[], object], count: int) -> int:
    """Sends edits at once; returns how many were painted, the others being refused for memory."""

    def painted(_: int) -> bool:
        try:
            edit()
        except Overloaded:
            return False
        return True

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(painted, range(count)))


@app.default
def main(*, checkpoints: Path = Path("checkpoints/demo"), side_px: int = LARGEST_SIDE_PX) -> None:
    """Prints the orchestrator's peak memory for each.

    Parameters
    ----------
    checkpoints
        Folder with the checkpoint of every stage.
    side_px
        Side of the picture to inpaint; the panorama has as many pixels.
    """
    print(conditions("grpcio", "pillow"))
    image, mask, half = noise(side_px), corner_mask(side_px), noise(side_px // 2)
    with (
        tempfile.TemporaryFile("w") as log,
        local_stack(checkpoints, log) as running,
        MuseClient(running.address) as client,
    ):
        pids = {pod.local.deployment.name: pod.pid for pod in running.pods}
        watched = pids["orchestrator"]
        assert watched is not None  # it is ready

        def inpaint() -> object:
            return client.inpaint(image, mask, "a fox", seed=1)

        def outpaint() -> object:
            return client.outpaint(half, "a fox", right_px=3 * (side_px // 2), seed=1)

        client.generate("a fox", seed=1)
        print(f"{'after a generation':44}{peak_mib(watched):>6} MiB")
        wide = f"{side_px // 2} x {2 * side_px}"
        for title, edit, count in (
            (f"a panorama of {wide}", outpaint, 1),
            (f"an inpainting of {side_px} x {side_px}", inpaint, 1),
            (f"{AT_ONCE} of them at once", inpaint, AT_ONCE),
            (f"{2 * AT_ONCE} of them at once", inpaint, 2 * AT_ONCE),
        ):
            forget_peak(watched)
            done = answered(edit, count)
            title = f"{title}, {done} painted"
            print(f"{title:44}{peak_mib(watched):>6} MiB", flush=True)


if __name__ == "__main__":
    app()
