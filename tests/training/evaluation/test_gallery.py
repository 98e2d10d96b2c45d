"""The gallery's page: every picture has its place and its words."""

from training.evaluation.gallery import Entry, page_of


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
