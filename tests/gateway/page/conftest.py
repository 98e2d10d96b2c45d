"""The page in a real browser: Chromium, driven by Playwright."""

import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from tests.gateway.conftest import Gateway

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

LONGEST_MS = 30_000  # until what a test expects is there, on a busy machine


@pytest.fixture
async def browser() -> AsyncIterator["Browser"]:
    """Chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("NOT RUN: chromium is not here; install it, such as apt-get install chromium")
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=LONGEST_MS)
    async with async_playwright() as playwright:
        # Containers give Chromium no namespaces for a sandbox, and little shared memory; it shows
        # only what tests serve.
        running = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield running
        finally:
            await running.close()


@pytest.fixture
async def page(browser: "Browser", gateway: Gateway) -> AsyncIterator["Page"]:
    """The page as it opens; the test fails if anything in it fails."""
    problems: list[str] = []
    opened = await browser.new_page()
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on(
        "console",
        lambda line: problems.append(line.text) if "Content Security Policy" in line.text else None,
    )
    await opened.goto(gateway.url)
    await opened.locator("#served:not(:empty)").wait_for()
    yield opened
    assert problems == []
