"""`python -m training.evaluation clip`: the CLIP score of a set of pictures."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from training.evaluation.pictures.set_flags import DEFAULT_OUT, DEFAULT_PICTURES, Out, Pictures
from training.evaluation.text_scores.clip_score import (
    mean_score,
    open_clip,
    picture_scores,
    scores_by_tag,
)

console = Console()


def clip(
    pictures: Path,
    *,
    model: Path,
    by: str | None = None,
    reading: Pictures = DEFAULT_PICTURES,
    out: Out = DEFAULT_OUT,
) -> None:
    """Measures the CLIP score of a set: the mean cosine of pictures and prompts, 0.32 in the paper.

    Parameters
    ----------
    pictures
        Generated set, training data, or folder of pictures with a .txt beside each.
    model
        Folder of a CLIP checkpoint, as `save_pretrained` of transformers writes it.
    by
        Tag of a generated set, such as Category, whose values get a mean each.
    """
    opened = reading.open(pictures)
    scores = picture_scores(opened, open_clip(model))
    rows = {"all": mean_score(scores)}
    if by is not None:
        rows |= scores_by_tag(opened, scores, by)
    table = Table(by or "set", "pictures", "CLIP score", title=f"CLIP score by {model}")
    for name, each in rows.items():
        table.add_row(name, str(each.pictures), f"{each.mean:.4f} ± {each.standard_error:.4f}")
    console.print(table)
    report = {
        "model": str(model),
        "means": {name: each.as_json() for name, each in rows.items()},
        "pictures": dict(zip(opened.names, scores, strict=True)),
    }
    out.mkdir(parents=True, exist_ok=True)
    file = out / "clip.json"
    file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    console.print(str(file))
