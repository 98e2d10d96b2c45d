"""`python -m training.evaluation tokenizers`: measures both tokenizers of a checkpoint root."""

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from training.data.scenes import draw_scene
from training.evaluation.detector import WORST_DISTANCE
from training.evaluation.detector_command import print_reliability
from training.evaluation.testbed import Testbed, open_testbed
from training.evaluation.token_entropy import measure_entropy
from training.evaluation.tokenizers import TokenizerReport, measure_tokenizer, tokenizer_folders
from training.tasks.frozen import FrozenTokenizer

ENTROPY_OBJECTS = 24
ENTROPY_SAMPLES = 64
console = Console()


def tokenizers(
    *,
    data: Path,
    checkpoints: Path,
    preset: str = "demo",
    low: Path | None = None,
    high: Path | None = None,
    only: str | None = None,
    pictures: int = 200,
    worst_distance: float = WORST_DISTANCE,
    conditional_entropy: bool = False,
    seed: int = 0,
    out: Path = Path("out/evaluation"),
) -> None:
    """Measures both tokenizers: PSNR, codes in use, and what is read in reconstructions.

    Parameters
    ----------
    data
        Folder of sprites.
    checkpoints
        Root with `tokenizer/low` and `tokenizer/high`.
    preset
        System that they belong to; it gives the board and the objects.
    low
        Folder of another low-resolution tokenizer, such as a run's export.
    high
        Folder of another high-resolution tokenizer.
    only
        "low" or "high": measures that one alone.
    pictures
        Scenes to encode and decode.
    worst_distance
        Of the detector: from a template, past which a region is not recognised.
    conditional_entropy
        Also measures the entropy of a token given the object, its style and size and the cell.
    seed
        Of the scenes.
    out
        Folder of the report.
    """
    if pictures < 1:
        raise ValueError(f"expected at least 1 picture, got {pictures}")
    folders = tokenizer_folders(checkpoints)
    folders |= {name: folder for name, folder in (("low", low), ("high", high)) if folder}
    if only is not None:
        if only not in folders:
            raise ValueError(f"only: expected low or high, got {only!r}")
        folders = {only: folders[only]}
    loaded = {name: FrozenTokenizer(folder) for name, folder in folders.items()}
    testbed = open_testbed(preset, data, worst_distance=worst_distance)
    reliability = print_reliability(testbed)
    random = np.random.default_rng(seed)
    scenes = [draw_scene(testbed.vocabulary, testbed.board, random) for _ in range(pictures)]
    reports = {
        name: measure_tokenizer(tokenizer, scenes, testbed) for name, tokenizer in loaded.items()
    }
    console.print(_table(reports, pictures))
    content: dict[str, object] = {
        "detector": reliability.as_json(),
        "tokenizers": {name: report.as_json() for name, report in reports.items()},
    }
    if conditional_entropy:
        content["conditional_entropy"] = _print_entropies(loaded, testbed, seed)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "tokenizers.json"
    file.write_text(json.dumps(content, indent=2) + "\n")
    console.print(str(file))


def _table(reports: dict[str, TokenizerReport], pictures: int) -> Table:
    table = Table(
        "tokenizer", "side", "PSNR", "codes used", "perplexity", "all right",
        title=f"Reconstructions of {pictures} scenes",
    )  # fmt: skip
    for name, report in reports.items():
        table.add_row(
            name,
            f"{report.side_px} px",
            f"{report.psnr_db:.2f} dB",
            f"{report.codes_used} of {report.codes} ({report.codes_used / report.codes:.1%})",
            f"{report.perplexity:.0f}",
            str(report.all_right),
        )
    return table


def _print_entropies(
    tokenizers: dict[str, FrozenTokenizer], testbed: Testbed, seed: int
) -> dict[str, object]:
    table = Table(
        "tokenizer", "bits, object's tokens", "bits, interior tokens",
        title=f"Entropy of a token given object, style, size and cell; "
        f"{ENTROPY_OBJECTS} objects, {ENTROPY_SAMPLES} scenes each",
    )  # fmt: skip
    content: dict[str, object] = {}
    for name, tokenizer in tokenizers.items():
        entropy = measure_entropy(
            tokenizer, testbed, objects=ENTROPY_OBJECTS, samples=ENTROPY_SAMPLES, seed=seed
        )
        inside = "-" if entropy.interior_bits is None else f"{entropy.interior_bits:.2f}"
        table.add_row(name, f"{entropy.object_bits:.2f}", inside)
        content[name] = vars(entropy)
    console.print(table)
    return content
