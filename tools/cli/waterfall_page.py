"""Timeline of a request as one HTML page: no script, no network, light and dark."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from muse_client import GeneratedImage

from services.pictures.xmp import well_formed
from tools.cli.image_files import write_file
from tools.cli.waterfall import KINDS, Row, Segment, total, waterfall

STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-weight: normal; }
th:first-child { text-align: left; } thead th { opacity: .7; }
td.bar { width: 60%; padding: 0; border-left: 1px solid var(--line); }
td.bar div { position: relative; height: 1.5rem; }
i { position: absolute; top: .25rem; height: 1rem; min-width: 1px; }
i.concurrent { opacity: .35; }
.queue { background: #d9a400; } .compute { background: #2f7ed8; }
.transfer { background: #8e5bb5; } .overhead { background: #7f8c8d; }
.key span { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 1rem; }
"""


def write_page(file: Path, pictures: Sequence[GeneratedImage], total_s: float, prompt: str) -> None:
    """Writes the page of a request's images; the file's folder is created.

    Raises:
        ValueError: the server is of a version that does not report its calls.
        RuntimeError: the file cannot be written.
    """
    key = "".join(f'<span class="{kind}"></span>{kind}' for kind in KINDS)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>Where the time went</title><style>{STYLE}</style></head><body>",
        f"<h1>Where the time of “<bdi>{escape(well_formed(prompt))}</bdi>” went</h1>",
        f'<p class="key">The whole request took {total_s * 1e3:.1f} ms.{key}. ',
        "Pale calls ran concurrently with a longer one.</p>",
    ]
    parts += [_table(picture) for picture in pictures]
    write_file(file, "\n".join([*parts, "</body></html>\n"]).encode())


def _table(picture: GeneratedImage) -> str:
    rows, wall_s = waterfall(picture), picture.wall_s
    after = "" if picture.iteration is None else f", after iteration {picture.iteration}"
    return "\n".join(
        [
            f"<h2>Picture {picture.index}, seed {picture.seed}{after}: {wall_s * 1e3:.1f} ms</h2>",
            "<table><thead><tr><th>ms</th><th></th>",
            *(f"<th>{kind}</th>" for kind in (*KINDS, "all", "device")),
            "</tr></thead><tbody>",
            *(_row(row, wall_s) for row in (*rows, total(rows))),
            "</tbody></table>",
        ]
    )


def _row(row: Row, wall_s: float) -> str:
    bars = "".join(_bar(segment, wall_s) for segment in row.segments)
    values = [*(row.seconds.get(kind, 0.0) for kind in KINDS), row.total_s, row.device_s]
    numbers = "".join(f"<td>{value * 1e3:.1f}</td>" for value in values)
    return f'<tr><th>{escape(row.name)}</th><td class="bar"><div>{bars}</div></td>{numbers}</tr>'


def _bar(segment: Segment, wall_s: float) -> str:
    left, width = segment.start_s / wall_s, (segment.end_s - segment.start_s) / wall_s
    concurrent = " concurrent" if segment.concurrent else ""
    title = (
        f"{segment.kind}: {(segment.end_s - segment.start_s) * 1e3:.1f} ms "
        f"from {segment.start_s * 1e3:.1f} ms on"
    )
    return (
        f'<i class="{segment.kind}{concurrent}" title="{title}" '
        f'style="left:{left:.4%};width:{width:.4%}"></i>'
    )
