"""A gateway over a system without a superres: what its page shows, and what is refused."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from services.stages import NO_STAGE
from tests.gateway.conftest import Gateway
from tests.gateway.page.conftest import browser, page
from tests.small_stages import LOW, RESOLUTIONS, House, open_house

if TYPE_CHECKING:
    from playwright.async_api import Page

__all__ = ["browser", "page"]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """An orchestrator over three stages."""
    async with open_house(superres=NO_STAGE) as opened:
        yield opened


async def test_the_page_has_no_sliders_of_a_superres_and_paints(page: "Page", house: House) -> None:
    from playwright.async_api import expect

    await page.click("#sampling summary")
    assert await page.locator("[name='base.steps']").is_visible()
    assert not await page.locator("[data-stage=superres]").is_visible()
    await page.fill("#prompt", "a fox")
    await page.click("#paint")
    await expect(page.locator("#status")).to_have_text("Finished")
    rows = await page.locator("#times tbody tr").all_inner_texts()
    assert [text.split()[0] for text in rows] == ["text", "base", "tokenizer", "orchestrator"]


async def test_pictures_have_the_side_of_the_bases_tokenizer(gateway: Gateway) -> None:
    side_px, _ = RESOLUTIONS[LOW]
    form = (await gateway.http.get("/page/form.json")).json()
    answer = await gateway.openai.images.generate(
        model="tiny",
        prompt="a fox",
        size=f"{side_px}x{side_px}",  # type: ignore[arg-type]
    )

    assert form["side_px"] == side_px
    assert list(form["defaults"]) == ["base"]
    assert answer.size == f"{side_px}x{side_px}"


@pytest.mark.parametrize("path", ["/v1/muse/generate", "/v1/images/generations"])
async def test_parameters_of_a_superres_are_refused(gateway: Gateway, path: str) -> None:
    body = {"prompt": "a fox", "superres": {"steps": 3}}
    answer = await gateway.http.post(path, json=body)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "superres.steps"
    assert "expected not set: this system has no superres, got 3" in error["message"]
