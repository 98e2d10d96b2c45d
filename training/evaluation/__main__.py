"""`python -m training.evaluation COMMAND`: scenes, knobs, edits, gallery or tokenizers."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import App
from jaxtyping import UInt8
from muse_client import DEFAULT_ADDRESS, GenerateOptions, MuseClient, MuseError, sampling
from rich.console import Console
from rich.progress import track
from rich.table import Table

from services.runtime.checkpoints.errors import CheckpointError
from training.data.scenes import draw_scene, render
from training.data.sprites import SceneDataError, load_sprites
from training.evaluation.detector import Detector
from training.evaluation.edits_command import edits
from training.evaluation.gallery import gallery
from training.evaluation.knobs import GROUPS, Trial, search
from training.evaluation.scenes import QUESTIONS, Asked, Painter, draw_questions, judge_all, shares
from training.evaluation.tokenizers import measure_tokenizer, tokenizer_folders
from training.pictures import contact_sheet
from training.tasks.frozen import FrozenTokenizer

app = App(name="python -m training.evaluation", help="Measures what was trained.")
app.command(edits)
app.command(gallery)
console = Console()


def server_painter(client: MuseClient, knobs: GenerateOptions | None = None) -> Painter:
    """Returns a painter that asks a running orchestrator.

    Args:
        client: Of the orchestrator.
        knobs: What every request says besides its prompt and seed; nothing by default.
    """

    def paint(asked: Asked) -> UInt8[np.ndarray, "h w 3"]:
        wanted: GenerateOptions = {**(knobs or {}), "seed": asked.seed}
        (picture,) = client.generate(asked.prompt, **wanted)
        return np.asarray(picture.image.convert("RGB"))

    return paint


@app.command
def scenes(
    *,
    data: Path,
    server: str = DEFAULT_ADDRESS,
    prompts_per_group: int = 20,
    seed: int = 0,
    guidance: float | None = None,
    temperature: float | None = None,
    steps: int | None = None,
    superres_steps: int | None = None,
    out: Path = Path("out/evaluation"),
) -> None:
    """Generates through the servers and reads the pictures back; the detector itself first.

    Parameters
    ----------
    data
        Folder of sprites.
    server
        Address of the orchestrator, HOST:PORT.
    prompts_per_group
        Pictures of each group.
    seed
        Of the questions and the pictures.
    guidance
        Of both transformers; the servers' default if not set, as the other three.
    temperature
        Of both transformers.
    steps
        Of the base.
    superres_steps
        Of the super-resolution.
    out
        Folder of the report and of the sheet of all pictures.
    """
    base = sampling(steps=steps, guidance=guidance, temperature=temperature)
    superres = sampling(steps=superres_steps, guidance=guidance, temperature=temperature)
    sprites = load_sprites(data)
    detector = Detector(sprites)
    questions = draw_questions(sprites.vocabulary, prompts_per_group, seed=seed)
    truth = shares(
        list(judge_all(questions, lambda asked: render(asked.scene, sprites, 128), detector))
    )
    _print("The detector on the scenes themselves", truth)
    with MuseClient(server) as client:
        painter = server_painter(client, {"base": base, "superres": superres})
        painted = judge_all(questions, painter, detector)
        judged = list(track(painted, "generating", total=len(questions), console=console))
    result = shares(judged)
    _print(f"Pictures of {server}", result)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [
        {
            "group": one.asked.group,
            "prompt": one.asked.prompt,
            "seed": one.asked.seed,
            **vars(one.verdict),
        }
        for one in judged
    ]
    report = {"detector": truth, "generated": result, "pictures": pictures}
    (out / "scenes.json").write_text(json.dumps(report, indent=2) + "\n")
    sheet = contact_sheet([one.picture for one in judged], columns=prompts_per_group)
    sheet.save(out / "scenes.png")
    console.print(f"{out / 'scenes.json'} and {out / 'scenes.png'}, one row a group")


@app.command
def knobs(
    *,
    data: Path,
    server: str = DEFAULT_ADDRESS,
    prompts_per_group: int = 16,
    seed: int = 100,
    guidance: float = 1.5,
    temperature: float = 0.7,
    confidence_noise: float = 2.0,
) -> None:
    """Looks for the knobs of both transformers that paint best, one after the other.

    Parameters
    ----------
    data
        Folder of sprites.
    server
        Address of the orchestrator, HOST:PORT.
    prompts_per_group
        Pictures of each group and value.
    seed
        Of the questions and the pictures; another than that of `scenes`.
    guidance
        To begin with.
    temperature
        To begin with.
    confidence_noise
        To begin with.
    """
    sprites = load_sprites(data)
    questions = draw_questions(sprites.vocabulary, prompts_per_group, seed=seed, groups=GROUPS)
    start = {
        "guidance": guidance,
        "temperature": temperature,
        "confidence_noise": confidence_noise,
    }
    trials = []
    with MuseClient(server) as client:

        def painter(chosen: Mapping[str, float]) -> Painter:
            return server_painter(
                client, {"base": sampling(**chosen), "superres": sampling(**chosen)}
            )

        for trial in search(start, questions, painter, Detector(sprites)):
            trials.append(trial)
            console.print(f"{dict(trial.knobs)}: {_outcome(trial)}")
    best = max(trials, key=lambda trial: trial.score)
    console.print(f"best of {len(questions)} pictures each: {json.dumps(dict(best.knobs))}")


def _outcome(trial: Trial) -> str:
    return f"all right {trial.all_right:.1%}, objects {trial.objects:.1%}"


@app.command
def tokenizers(
    *,
    data: Path,
    checkpoints: Path,
    pictures: int = 200,
    seed: int = 0,
    out: Path = Path("out/evaluation"),
) -> None:
    """Measures both tokenizers: PSNR, codes in use, and what is read in reconstructions."""
    if pictures < 1:
        raise ValueError(f"expected at least 1 picture, got {pictures}")
    sprites = load_sprites(data)
    detector = Detector(sprites)
    random = np.random.default_rng(seed)
    drawn = [draw_scene(sprites.vocabulary, random) for _ in range(pictures)]
    loaded = {name: FrozenTokenizer(at) for name, at in tokenizer_folders(checkpoints).items()}
    side_px = loaded["high"].config.image_size
    reports = {
        name: measure_tokenizer(
            tokenizer, drawn, sprites, picture_side_px=side_px, detector=detector
        ).as_json()
        for name, tokenizer in loaded.items()
    }
    table = Table("tokenizer", *reports["high"])
    for name, report in reports.items():
        table.add_row(name, *(f"{value:.4g}" for value in report.values()))
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizers.json").write_text(json.dumps(reports, indent=2) + "\n")


def _print(title: str, result: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table("group", "pictures", *QUESTIONS, title=title)
    for group, row in result.items():
        cells = ("-" if row[name] is None else f"{row[name]:.1%}" for name in QUESTIONS)
        table.add_row(group, str(row["pictures"]), *cells)
    console.print(table)


def main() -> None:
    """Runs the command line; a mistake of the user's is one line."""
    try:
        app()
    except (CheckpointError, MuseError, SceneDataError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
