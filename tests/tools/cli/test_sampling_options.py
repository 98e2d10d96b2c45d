"""Sampling parameters of a command line: flags that both transformers share, and their own."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from muse_client import GenerateOptions, InvalidRequest, MuseClient, sampling

from services.stages import NO_STAGE
from tests.small_stages import House, open_house
from tools.cli.options import sampling_options


async def options_for(house: House, shared: dict[str, Any], **steps: int) -> GenerateOptions:
    def ask() -> GenerateOptions:
        with MuseClient(house.address) as client:
            options = sampling_options(client, shared, **steps)
            client.generate("a fox", seed=1, **options)
            return options

    return await asyncio.to_thread(ask)


async def test_shared_flags_go_to_both_transformers_and_steps_to_their_own() -> None:
    async with open_house() as house:
        options = await options_for(house, {"guidance_scale": 4.0}, steps=9, superres_steps=2)

    assert options == {
        "base": sampling(guidance_scale=4, steps=9),
        "superres": sampling(guidance_scale=4, steps=2),
    }


async def test_without_a_superres_shared_flags_are_the_bases_alone() -> None:
    async with open_house(superres=NO_STAGE) as house:
        options = await options_for(house, {"guidance_scale": 4.0}, steps=9)
        assert options == {"base": sampling(guidance_scale=4, steps=9), "superres": sampling()}
        with pytest.raises(InvalidRequest, match="this system has no superres"):
            await options_for(house, {}, superres_steps=2)


async def test_who_may_not_ask_for_the_status_has_flags_for_both(tmp_path: Path) -> None:
    policies = tmp_path / "policies.toml"
    policies.write_text("[policy.default]\nstatus = false\n")
    async with open_house(policies_file=policies) as house:
        options = await options_for(house, {"temperature": 0.5})

    assert options == {"base": sampling(temperature=0.5), "superres": sampling(temperature=0.5)}
