"""Examples a second of each kind of training data, against Pillow decoding the same bytes.

`python -m benchmarks.data_paths` (`--pictures 4 --rounds 1` to see that it runs), on one CPU. The
pictures are drawn here. Two floors: decoding the JPEG files from memory, and decoding, cropping and
scaling them as training does. A path adds finding an example, reading its bytes, its caption, the
checks and the copies. Seconds are those of the CPU, so that other work on the machine counts
little; waiting for a disk or a bucket is not counted.
"""

import gzip
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
from array_record.python.array_record_module import ArrayRecordWriter
from cyclopts import App
from PIL import Image
from pyarrow import parquet

from benchmarks.measuring import conditions, in_turns, limit_cpus
from training.data.captioned.array_records import example_type
from training.data.captioned.batches import CaptionedBatches
from training.data.captioned.reading import central_square
from training.data.sources import NO_DATA_FLAGS

SIZE = (640, 480)
SIDE_PX = 256
CAPTION = "a photograph of nothing in particular, in many colours"

app = App(help=__doc__)


def photograph(seed: int) -> bytes:
    """Draws a JPEG file about as large and as smooth as a photograph."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8))
    smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), np.int16)
    grain = random.integers(-9, 10, smooth.shape)
    content = io.BytesIO()
    pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(content, "JPEG", quality=90)
    return content.getvalue()


def write_all(root: Path, pictures: Sequence[bytes]) -> dict[str, str]:
    """Writes the pictures in every kind of file; returns the folders or URLs by kind."""
    for name in ("tar", "gz", "parquet", "array_record", "folder"):
        (root / name).mkdir()
    with tarfile.open(root / "tar" / "a.tar", "w") as archive:
        for row, picture in enumerate(pictures):
            for ending, content in ((".jpg", picture), (".txt", CAPTION.encode())):
                (root / "folder" / f"{row:06}{ending}").write_bytes(content)
                member = tarfile.TarInfo(f"{row:06}{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    tar = root / "tar" / "a.tar"
    with tar.open("rb") as plain, gzip.open(root / "gz" / "a.tar.gz", "wb", 6) as packed:
        shutil.copyfileobj(plain, packed)
    table = pyarrow.table({"image": list(pictures), "caption": [CAPTION] * len(pictures)})
    parquet.write_table(table, root / "parquet" / "a.parquet", row_group_size=100)
    writer = ArrayRecordWriter(str(root / "array_record" / "a.array_record"), "group_size:1")
    for picture in pictures:
        example = example_type()()
        for name, content in (("image", picture), ("caption", CAPTION.encode())):
            example.features.feature[name].bytes_list.value.append(content)
        writer.write(example.SerializeToString())
    writer.close()
    fsspec.filesystem("memory").pipe_file("/bucket/a.tar", tar.read_bytes())
    return {
        "tar": str(root / "tar"),
        "tar of memory://": "memory://bucket",
        "tar.gz": str(root / "gz"),
        "Parquet": str(root / "parquet"),
        "ArrayRecord": str(root / "array_record"),
        "folder": str(root / "folder"),
    }


@app.default
def main(*, pictures: int = 256, batch_size: int = 32, rounds: int = 5) -> None:
    """Prints examples a second of every path and their ratio to the floor.

    Parameters
    ----------
    pictures
        Pictures drawn.
    batch_size
        Examples of a timed call.
    rounds
        Timed calls of each path.
    """
    cpus = limit_cpus(1)
    files = [photograph(seed) for seed in range(pictures)]
    mean_kb = sum(map(len, files)) / len(files) / 1e3
    print(conditions("grain", "pillow", "pyarrow"))
    size = f"{SIZE[0]} x {SIZE[1]}"
    print(f"{pictures} JPEGs of {size}, {mean_kb:.0f} kB, to {SIDE_PX} px, {cpus} CPU")
    batch = [files[row % pictures] for row in range(batch_size)]

    def decoded() -> list[np.ndarray]:
        return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in batch]

    contenders: dict[str, Callable[[], object]] = {
        "Pillow: decode": decoded,
        "Pillow: decode, crop, scale": lambda: [central_square(rgb, SIDE_PX) for rgb in decoded()],
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, url in write_all(root, files).items():
            begun = time.process_time()
            opened = NO_DATA_FLAGS.open(url, root / "out")
            print(f"first opening of {name}: {1e3 * (time.process_time() - begun):.0f} ms")
            reader = NO_DATA_FLAGS.reader(opened, side_px=SIDE_PX, log=root / "skipped.jsonl")
            batches = CaptionedBatches(reader, batch_size=batch_size, seed=0)
            contenders[name] = lambda batches=batches: batches.captioned(0)  # type: ignore[misc]
        seconds = in_turns(contenders, rounds=rounds, clock=time.process_time)
    floor = seconds["Pillow: decode, crop, scale"].median
    print(f"examples a CPU second, and time against decode, crop, scale; medians of {rounds}")
    for name, spread in seconds.items():
        print(f"{name:28}{batch_size / spread.median:8.1f}{spread.median / floor:8.2f}")


if __name__ == "__main__":
    app()
