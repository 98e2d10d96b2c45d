"""The waterfall: what the terminal and the page draw of a picture's time."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from muse.common.v1.stage_pb2 import StageCall, StageTiming
from muse_client import GeneratedImage
from rich.console import Console

from tests.picture_files import file_of
from tools.cli.rendering import waterfall_lines
from tools.cli.waterfall import Row, Segment, cells, waterfall
from tools.cli.waterfall_page import write_page


def call(stage: str, start_s: float, seconds: float, *, concurrent: bool = False) -> StageCall:
    """A call that waits, computes and travels: a tenth, eight tenths, a tenth."""
    timing = StageTiming(
        stage=stage,
        queue_s=0.1 * seconds,
        compute_s=0.8 * seconds,
        transfer_s=0.1 * seconds,
        device_s=0.4 * seconds,
    )
    return StageCall(timing=timing, start_s=start_s, concurrent=concurrent)


def picture(*calls: StageCall, wall_s: float = 1.0) -> GeneratedImage:
    """A picture of whose calls none shares its stage with another one that counts."""
    timings = tuple(each.timing for each in calls if not each.concurrent)
    spent_s = sum(each.queue_s + each.compute_s + each.transfer_s for each in timings)
    return GeneratedImage(
        index=0,
        seed=7,
        file=file_of(np.zeros((1, 1, 3), np.uint8)),
        timings=timings,
        wall_s=wall_s,
        overhead_s=wall_s - spent_s,
        calls=calls,
    )


PAINTED = picture(
    call("text_encoder", 0.1, 0.1), call("base", 0.2, 0.5), call("tokenizer", 0.75, 0.05)
)


def printed(painted: GeneratedImage, width: int) -> list[str]:
    page = io.StringIO()
    console = Console(file=page, width=width, color_system=None)
    for line in waterfall_lines(painted, width):
        console.print(line, highlight=False)
    return page.getvalue().splitlines()


def test_the_rows_add_up_to_the_wall_time_and_the_gaps_are_overhead() -> None:
    rows = waterfall(PAINTED)
    assert [row.name for row in rows] == ["text_encoder", "base", "tokenizer", "overhead"]
    assert sum(row.total_s for row in rows) == pytest.approx(1.0)
    gaps = [(segment.start_s, segment.end_s) for segment in rows[-1].segments]
    assert gaps == [pytest.approx(gap) for gap in ((0.0, 0.1), (0.7, 0.75), (0.8, 1.0))]


def test_a_call_is_drawn_as_half_the_transfer_queue_compute_and_the_other_half() -> None:
    segments = waterfall(PAINTED)[1].segments
    assert [segment.kind for segment in segments] == ["transfer", "queue", "compute", "transfer"]
    edges = [segments[0].start_s, *(segment.end_s for segment in segments)]
    assert edges == pytest.approx([0.2, 0.225, 0.275, 0.675, 0.7])


def test_a_cell_shows_what_fills_it_most_what_is_short_too_and_what_was_waited_for_first() -> None:
    segments = (
        Segment("queue", 0.0, 0.06),
        Segment("compute", 0.06, 0.2),
        Segment("transfer", 0.31, 0.32),
        Segment("compute", 0.4, 0.6, concurrent=True),
        Segment("queue", 0.45, 0.46),
    )
    row = Row(name="base", segments=segments, seconds={})
    assert (
        cells(row, 1.0, 10) == ["queue", "compute", "", "transfer", "queue", "compute"] + [""] * 4
    )


@pytest.mark.parametrize("width", [72, 80, 200])
def test_the_terminal_shows_bars_in_their_places_and_no_line_is_too_wide(width: int) -> None:
    lines = printed(PAINTED, width)
    assert max(map(len, lines)) <= width
    assert lines[0] == "picture 0: 1000.0 ms"
    bar = width - 34
    base = lines[3]
    assert base.startswith("base")
    assert base.endswith("500.0     200.0")
    place = base[14 : 14 + bar]
    assert place.strip()[0] in "▒░"
    assert place.index("█") == pytest.approx(0.275 * bar, abs=1.5)
    assert lines[-2].split() == ["all", "1000.0", "260.0"]
    assert " ".join(lines[-1].split()) == (
        "░ queue 65.0 █ compute 520.0 ▒ transfer 65.0 · overhead 350.0"
    )


def test_the_page_holds_every_number_and_needs_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new" / "trace.html"
    write_page(file, [PAINTED], 1.01, "a <fox> & an owl")

    text = file.read_text()
    assert "a &lt;fox&gt; &amp; an owl" in text
    assert not re.search(r"<script|<link|<img|https?://|url\(|@import", text)
    for number in ("1010.0", "1000.0", "500.0", "350.0"):
        assert number in text
    bars = re.findall(r'<i class="(\w+)" .*?left:([\d.]+)%;width:([\d.]+)%', text)
    assert len(bars) == 3 * 4 + 3
    assert sum(float(width) for _, _, width in bars) == pytest.approx(100, abs=0.1)


def test_what_ran_beside_is_drawn_but_not_counted() -> None:
    both = picture(call("tokenizer", 0.0, 0.5, concurrent=True), call("tokenizer", 0.0, 1.0))
    (row, overhead) = waterfall(both)
    assert row.total_s == pytest.approx(1.0)
    assert [segment.concurrent for segment in row.segments].count(True) == 4
    assert overhead.segments == ()


def test_a_server_of_an_earlier_version_is_named_as_such() -> None:
    with pytest.raises(ValueError, match="got one of an earlier version"):
        waterfall(picture())
