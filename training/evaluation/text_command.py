"""`python -m training.evaluation text`: a linear probe of the text encoder."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from training.evaluation.testbed import open_testbed
from training.evaluation.text_probe import probe_text_encoder

console = Console()


def text(
    *,
    data: Path,
    checkpoint: Path,
    preset: str = "demo",
    training_captions: int = 8000,
    test_captions: int = 2000,
    steps: int = 400,
    seed: int = 0,
    out: Path = Path("out/evaluation"),
) -> None:
    """Measures what a linear projection reads from the embeddings of the nouns of captions.

    Parameters
    ----------
    data
        Folder of sprites.
    checkpoint
        Folder of the text encoder.
    preset
        System that it belongs to; it gives the objects of the captions.
    training_captions
        Captions of training scenes that the probe is fitted to.
    test_captions
        Captions of held-out scenes that it is measured on.
    steps
        Of the fit, each on all captions.
    seed
        Of the captions.
    out
        Folder of the report.
    """
    shares = probe_text_encoder(
        checkpoint,
        open_testbed(preset, data),
        training=training_captions,
        test=test_captions,
        steps=steps,
        seed=seed,
    )
    table = Table("label", "read right", title=f"Linear probe on {shares['all'].total} nouns")
    for name, share in shares.items():
        table.add_row(name, str(share))
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    content = {name: share.as_json() for name, share in shares.items()}
    file = out / "text.json"
    file.write_text(json.dumps(content, indent=2) + "\n")
    console.print(str(file))
