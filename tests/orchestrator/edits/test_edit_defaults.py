"""Sampling parameters of mask-free edits: the request's, the checkpoint's own, the paper's."""

import pytest
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, MaskFreeEdit

from services.orchestrator.requests import with_defaults

DEFAULTS = {
    "base": Sampling(steps=24, guidance_scale=1.5, temperature=0.5),
    "superres": Sampling(steps=8, guidance_scale=1.5),
}
OWN = Sampling(guidance_scale=1.75)


@pytest.mark.parametrize(
    ("own", "asked", "guidance"),
    [
        (Sampling(), Sampling(), 4),
        (OWN, Sampling(), 1.75),
        (OWN, Sampling(guidance_scale=3), 3),
        (OWN, Sampling(guidance_scale=0), 0),
    ],
)
def test_the_request_goes_before_the_checkpoint_and_that_before_the_paper(
    own: Sampling, asked: Sampling, guidance: float
) -> None:
    edit = GenerateRequest(prompt="a fox", base=asked, mask_free_edit=MaskFreeEdit(iterations=30))
    full = with_defaults(edit, DEFAULTS, own)
    assert (full.base.guidance_scale, full.base.guidance_scale_start) == (guidance, guidance)
    assert (full.base.steps, full.base.top_k, full.base.temperature) == (30, 3, 0.5)
    assert full.superres.guidance_scale == 1.5


def test_other_requests_have_the_defaults_of_the_stage() -> None:
    full = with_defaults(GenerateRequest(prompt="a fox"), DEFAULTS, OWN)
    assert full.base == DEFAULTS["base"]
