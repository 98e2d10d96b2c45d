"""Sampling parameters of good requests."""

from muse.common.v1.decoding_pb2 import Sampling


def full_sampling() -> Sampling:
    """Returns a value of every parameter but the seed, which the orchestrator draws itself."""
    return Sampling(
        steps=2,
        guidance_scale=2,
        guidance_scale_start=1,
        temperature=1,
        choice_temperature=1,
        top_k=3,
        min_steps=1,
    )
