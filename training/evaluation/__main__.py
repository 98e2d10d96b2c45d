"""`python -m training.evaluation COMMAND`: measures what was trained.

`generate`, `reconstruction`, `frechet`, `fid`, `clip`, `pareto` and `raters` work on any pictures
and prompts; the other commands on composed scenes.
"""

import logging
import sys

from cyclopts import App
from muse_client import MuseError

from services.runtime.checkpoints.errors import CheckpointError
from services.runtime.observability.otel_variables import check_variables
from services.runtime.version import package_version
from services.runtime.wire.errors import RequestError
from training.data.sprites import SceneDataError
from training.evaluation.detector_command import detector
from training.evaluation.distances.distance_commands import fid, frechet
from training.evaluation.edits_command import edits
from training.evaluation.gallery import gallery
from training.evaluation.pareto.pareto_command import pareto
from training.evaluation.pictures.generate_command import generate
from training.evaluation.raters.raters_command import raters
from training.evaluation.reconstruction_command import reconstruction
from training.evaluation.scenes_command import scenes, search_sampling
from training.evaluation.stages_command import base, superres
from training.evaluation.text_command import text
from training.evaluation.text_scores.clip_command import clip
from training.evaluation.tokenizers_command import tokenizers

app = App(
    name="python -m training.evaluation",
    help="Measures what was trained.",
    version=package_version,
)
for command in (detector, tokenizers, text, base, superres, scenes, edits, gallery):
    app.command(command)
for any_data in (generate, reconstruction, frechet, fid, clip, pareto, raters):
    app.command(any_data)
app.command(search_sampling, name="sampling")


def main() -> None:
    """Runs the command line; a mistake of the user's is one line."""
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        check_variables()  # the client sends the caller's trace context
        app()
    except (CheckpointError, MuseError, OSError, RequestError, SceneDataError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
