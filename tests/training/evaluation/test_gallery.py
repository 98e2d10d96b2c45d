"""The gallery's page: every picture has its place and its words."""

from PIL import Image

from training.evaluation.gallery import GAP_PX, Entry, page_of, rows_of


def test_the_page_names_every_picture_and_its_words() -> None:
    page = page_of(
        [
            Entry(file="a.webp", title="One", words="a fox; an owl"),
            Entry(file="b.webp", title="Other", words=""),
        ],
        "demo",
        3,
        7,
    )
    assert "![One](gallery/a.webp)\n\na fox; an owl\n" in page
    assert page.endswith("![Other](gallery/b.webp)\n")
    assert "seed 7" in page


def test_rows_may_differ_in_width() -> None:
    wide, square = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (10, 10), "blue")
    sheet = rows_of([[square, square], [square, wide]])
    assert sheet.size == (30 + 3 * GAP_PX, 20 + 3 * GAP_PX)
    assert sheet.getpixel((sheet.width - GAP_PX - 1, sheet.height - GAP_PX - 1)) == (255, 0, 0)
    assert sheet.getpixel((sheet.width - GAP_PX - 1, GAP_PX)) == (255, 255, 255)
