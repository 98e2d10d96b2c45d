"""Default sampling parameters: the paper's, overridden by the checkpoint's."""

import json
from pathlib import Path

import pytest
from muse.common.v1.decoding_pb2 import Sampling

from services.masked.defaults import (
    FILE_NAME,
    checkpoint_defaults,
    edit_defaults,
    paper_defaults,
)
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
        ("[1]", "expected a JSON object, got list"),
    ],
)
def test_a_malformed_parameter_is_refused_with_the_name_of_the_file(
    tmp_path: Path, content: str, named: str
) -> None:
    (tmp_path / FILE_NAME).write_text(content)

    with pytest.raises(CheckpointMismatch, match=named) as caught:
        checkpoint_defaults(tmp_path, steps=24)
    assert str(tmp_path / FILE_NAME) in str(caught.value)


def test_a_checkpoint_has_its_own_parameters_for_mask_free_edits(tmp_path: Path) -> None:
    assert edit_defaults(tmp_path) == Sampling()
    (tmp_path / FILE_NAME).write_text(
        json.dumps({"temperature": 0.5, "mask_free_edit": {"guidance_scale": 1.75}})
    )
    assert edit_defaults(tmp_path) == Sampling(guidance_scale=1.75)
    assert checkpoint_defaults(tmp_path, steps=24).guidance_scale == 4


@pytest.mark.parametrize(
    ("edits", "named"),
    [
        ('{"guidance": 1}', "guidance"),
        ('{"guidance_scale": -1}', "guidance_scale"),
        ('{"steps": 100}', "steps or guidance_scale_start"),
        ('{"seed": 3}', "seed"),
        ("[1]", "expected sampling parameters"),
    ],
)
def test_malformed_parameters_for_mask_free_edits_are_refused(
    tmp_path: Path, edits: str, named: str
) -> None:
    (tmp_path / FILE_NAME).write_text(f'{{"mask_free_edit": {edits}}}')
    with pytest.raises(CheckpointMismatch, match=named):
        edit_defaults(tmp_path)


def test_the_demo_edits_with_the_guidance_that_was_measured_as_its_best() -> None:
    folder = Path(__file__).parents[2] / "checkpoints" / "demo" / "base"
    assert edit_defaults(folder) == Sampling(guidance_scale=1.75)
