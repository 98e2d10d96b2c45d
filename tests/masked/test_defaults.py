"""Default sampling parameters: the paper's, overridden by the checkpoint's."""

import json
from pathlib import Path

import pytest

from services.masked.defaults import FILE_NAME, checkpoint_defaults, paper_defaults
from services.runtime.checkpoints.errors import CheckpointMismatch


def test_a_checkpoint_without_a_file_has_the_papers_parameters(tmp_path: Path) -> None:
    assert checkpoint_defaults(tmp_path, steps=24) == paper_defaults(24)


def test_a_checkpoints_own_parameters_override_the_papers(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(
        json.dumps({"temperature": 0.5, "guidance_scale": 0, "steps": 16})
    )

    defaults = checkpoint_defaults(tmp_path, steps=24)

    assert (defaults.steps, defaults.temperature, defaults.guidance_scale) == (16, 0.5, 0.0)
    assert defaults.choice_temperature == paper_defaults(24).choice_temperature


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"temperature": 0.5', "delimiter"),
        ('{"temprature": 0.5}', "temprature"),
        ('{"temperature": "hot"}', "temperature"),
        ('{"temperature": -1}', "temperature"),
        ('{"guidance_scale": NaN}', "guidance_scale"),
        ('{"steps": 0}', "steps"),
        ('{"seed": 3}', "seed"),
        ('{"min_steps": 3}', "min_steps"),
        ("[1]", "expected sampling parameters"),
    ],
)
def test_a_malformed_parameter_is_refused_with_the_name_of_the_file(
    tmp_path: Path, content: str, named: str
) -> None:
    (tmp_path / FILE_NAME).write_text(content)

    with pytest.raises(CheckpointMismatch, match=named) as caught:
        checkpoint_defaults(tmp_path, steps=24)
    assert str(tmp_path / FILE_NAME) in str(caught.value)
