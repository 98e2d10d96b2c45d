"""The web page: what a person does on it, and what the servers are asked for."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from muse_client import AsyncMuseClient

from services.gateway.page.routes import STATIC
from tests.examples.running import node_for, run
from tests.gateway.conftest import Gateway, Start
from tests.gateway.pictures import SIDE_PX, file_of, noise, pixels_of
from tests.small_stages import DEFAULTS, House

if TYPE_CHECKING:
    from playwright.async_api import Browser, FilePayload, Page

NODE = Path(__file__).parents[1] / "node"
PICTURE: "FilePayload" = {
    "name": "own.png",
    "mimeType": "image/png",
    "buffer": file_of(noise()),
}
SMALL: "FilePayload" = {**PICTURE, "buffer": file_of(noise()[:8, :8])}


async def painted(page: "Page", *, finished: str = "Finished") -> None:
    """Asks, and waits until the page says how it ended."""
    from playwright.async_api import expect

    await page.click("#paint")
    await expect(page.locator("#status")).to_have_text(finished)


async def shown(page: "Page") -> np.ndarray:
    """Returns the pixels of the picture that is shown."""
    width, height, *values = await page.evaluate(
        """async () => {
            const picture = document.getElementById("picture");
            await picture.decode();
            const {naturalWidth: width, naturalHeight: height} = picture;
            const canvas = Object.assign(document.createElement("canvas"), {width, height});
            const pen = canvas.getContext("2d");
            pen.drawImage(picture, 0, 0);
            return [width, height, ...pen.getImageData(0, 0, width, height).data];
        }"""
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


async def test_a_picture_forms_step_by_step_and_can_be_looked_at_again(
    page: "Page", house: House
) -> None:
    await page.fill("#prompt", "a fox")
    await page.fill("[name=seed]", "7")
    await page.check("[name=lock]")
    await painted(page)

    async with AsyncMuseClient(house.address) as muse:
        (expected,) = await muse.generate("a fox", seed=7)
    last = await shown(page)
    assert (last == np.asarray(expected.image)).all()
    steps = DEFAULTS["base"].steps + DEFAULTS["superres"].steps
    assert await page.get_attribute("#scrubber", "max") == str(steps)
    await page.locator("#scrubber").fill("0")
    first_step = f"Base, step 1 of {DEFAULTS['base'].steps}"
    assert await page.text_content("#scrub output") == first_step
    assert await page.get_attribute("#picture", "alt") == "a fox: " + first_step
    rows = page.locator("#times tbody tr")
    assert [text.split()[0] for text in await rows.all_inner_texts()] == [
        "text",
        "base",
        "superres",
        "tokenizer",
        "orchestrator",
    ]
    assert await page.locator("#history li").count() == 1
    assert await page.get_attribute("#save", "download") == "muse-7.png"


async def test_sliders_that_were_moved_are_sent_and_others_are_the_stages_defaults(
    page: "Page", house: House
) -> None:
    await page.click("#sampling summary")
    assert await page.input_value("[name='base.steps']") == str(DEFAULTS["base"].steps)
    await page.locator("[name='superres.temperature']").fill("0.5")
    await page.fill("#prompt", "a fox")
    await page.fill("#negative_prompt", "an owl")
    await page.fill("[name=count]", "2")
    await painted(page)

    assert await page.locator("#pictures li").count() == 2
    asked = house.stages["superres"].asked[0].sampling
    assert (asked.temperature, asked.steps) == (0.5, DEFAULTS["superres"].steps)
    assert house.stages["base"].asked[0].sampling.steps == DEFAULTS["base"].steps
    seeds = [int(each.sampling.seed) for each in house.stages["base"].asked]
    assert sorted(seeds) == [min(seeds), min(seeds) + 1]
    assert await page.input_value("[name=seed]") == str(min(seeds))


async def test_a_mask_is_painted_by_mouse_and_by_keys_and_the_rest_stays(page: "Page") -> None:
    await page.check("[value=inpaint]")
    await page.set_input_files("[name=image]", [PICTURE])
    box = await page.locator("#canvas").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 2)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] - 2, steps=12)
    await page.mouse.up()
    await page.fill("#prompt", "a fox")
    await painted(page)

    result, given = await shown(page), noise()
    changed = (result != given).any(axis=(0, 2))
    assert changed[SIDE_PX * 3 // 4]
    assert not changed[: SIDE_PX // 2].any()
    await page.click("#clear")
    await page.focus("#canvas")
    for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowLeft", "Space"):
        await page.keyboard.press(key)
    await painted(page)
    assert (await shown(page) != given).any()


async def test_a_border_is_dragged_outward(page: "Page") -> None:
    await page.check("[value=outpaint]")
    await page.set_input_files("[name=image]", [PICTURE])
    box = await page.locator("#canvas").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    await page.mouse.down()
    await page.mouse.move(box["x"] + 1.5 * box["width"], box["y"] + box["height"] / 2, steps=99)
    await page.mouse.up()
    assert abs(int(await page.input_value("[name=right_px]")) - SIDE_PX // 2) <= 1
    await page.fill("[name=right_px]", "32")
    await page.fill("#prompt", "a fox")
    await painted(page)

    result = await shown(page)
    assert result.shape[1] == SIDE_PX + 32
    assert (result[:, :SIDE_PX] == noise()).all()


async def test_a_finished_picture_is_changed_by_words_and_varied(
    page: "Page", house: House
) -> None:
    await page.check("[value=vary]")
    await page.set_input_files("[name=image]", [PICTURE])
    await painted(page)
    first = await shown(page)
    await page.click("#reuse")
    await page.check("[value=mask-free-edit]")
    await page.locator("#iterations").fill("4")
    await page.fill("#prompt", "an owl")
    await painted(page)
    assert house.stages["base"].asked[-1].sampling.steps == 4
    assert (await shown(page)).shape == first.shape

    assert await page.locator("#history li").count() == 2
    await page.locator("#history li button").first.click()
    assert (await shown(page) == first).all()


async def test_what_is_wrong_is_said_where_it_is_wrong(page: "Page") -> None:
    from playwright.async_api import expect

    problem = page.locator("#problem")
    await page.click("#paint")
    await expect(problem).to_have_text("Say what to paint.")
    assert await page.evaluate("document.activeElement.id") == "prompt"
    assert await page.get_attribute("#prompt", "aria-invalid") == "true"

    await page.fill("#prompt", " ".join(["fox"] * 40))
    await page.click("#paint")
    await expect(problem).to_contain_text("prompt")
    await page.fill("#prompt", "a fox")
    await page.fill("[name=seed]", "-1")
    await page.click("#paint")
    await expect(problem).to_contain_text("whole number of 0 to 9007199254740991")
    await page.fill("[name=seed]", "")
    await page.check("[value=outpaint]")
    await page.click("#paint")
    await expect(problem).to_have_text("Choose a picture to start from.")
    await page.check("[value=mask-free-edit]")
    await page.set_input_files("[name=image]", [SMALL])
    await page.click("#paint")
    await expect(problem).to_contain_text("expected sides of at least 16 pixels")
    assert await page.get_attribute("[name=image]", "aria-invalid") == "true"
    await page.check("[value=generate]")
    await painted(page)
    await expect(problem).to_be_hidden()
    assert await page.locator("[aria-invalid]").count() == 0


async def test_a_request_is_stopped_and_its_calls_end(page: "Page", house: House) -> None:
    from playwright.async_api import expect

    gate = asyncio.Event()
    house.stages["base"].around = lambda seed: gate.wait()
    await page.fill("#prompt", "a fox")
    await page.click("#paint")
    await page.click("#stop")
    await expect(page.locator("#status")).to_have_text("Stopped")
    await expect(page.locator("#stop")).to_be_hidden()
    gate.set()


async def test_the_request_is_shown_as_programs_that_paint_the_same(
    page: "Page", tmp_path: Path
) -> None:
    await page.fill("#prompt", "a fox's den")
    await painted(page)
    expected = await shown(page)
    await page.click("#code summary")
    command = await page.inner_text("#code code")
    answer = await printed(command, tmp_path)
    assert (pixels_of(json.loads(answer)["images"][0]["image"]) == expected).all()

    await page.select_option("#language", "python")
    program = await page.inner_text("#code code")
    compile(program, "program", "exec")
    assert 'muse.generate(\n        prompt="a fox\'s den",\n        seed=' in program
    await page.select_option("#language", "grpc")
    words = await printed(f"printf '%s\\n' {await page.inner_text('#code code')}", tmp_path)
    message = json.loads(words.splitlines()[3])
    assert message["prompt"] == "a fox's den"


async def printed(command: str, folder: Path) -> str:
    """Returns what a shell prints of a command, while this loop serves its calls."""
    status, output = await run("sh", "-c", command, cwd=folder)
    assert status == 0, output
    return output


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_a_desk_and_on_a_phone(
    browser: "Browser", gateway: Gateway, scheme: Any
) -> None:
    node_for(NODE)
    axe = (NODE / "node_modules/axe-core/axe.min.js").read_text("utf-8")
    for width in (1200, 360):
        page = await browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
        )
        await page.goto(gateway.url)
        await page.fill("#prompt", "a fox")
        await painted(page)
        for summary in await page.locator("summary").all():
            await summary.click()
        await page.check("[value=inpaint]")
        await page.set_input_files("[name=image]", [PICTURE])
        await page.evaluate(axe)
        found = await page.evaluate("axe.run()")
        assert [
            (each["id"], [node["html"][:120] for node in each["nodes"]])
            for each in found["violations"]
        ] == []
        assert len(found["passes"]) > 20
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_modules_have_sound_types() -> None:
    node_for(NODE)
    compiler = NODE / "node_modules/.bin/tsc"
    ended = subprocess.run(
        [compiler, "-p", STATIC.parent], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (0, "")


async def test_the_page_is_small_loads_nothing_from_elsewhere_and_is_not_sent_twice(
    gateway: Gateway,
) -> None:
    sent = 0
    for name in ("", *(f"page/{file.name}" for file in STATIC.iterdir())):
        answer = await gateway.http.get(f"/{name}")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "").replace(
            "{origin}", ""
        ).replace("http://127.0.0.1", "")
        again = await gateway.http.get(
            f"/{name}", headers={"If-None-Match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        sent += int(answer.headers["content-length"])
    assert sent < 150_000
    for name in ("page/nothing.js", "page/..%2froutes.py"):
        assert (await gateway.http.get(f"/{name}")).status_code == 404


async def test_without_the_servers_the_page_says_why_and_a_flag_leaves_it_out(
    start: Start, house: House
) -> None:
    await house.lines["base"].cut()
    async with start() as running:
        form = (await running.http.get("/page/form.json")).json()
        assert "base" in form["away"]
        assert len(form["parameters"]) == 6
    async with start(page=False) as running:
        assert (await running.http.get("/")).status_code == 404
        assert (await running.http.get("/page/form.json")).status_code == 404
