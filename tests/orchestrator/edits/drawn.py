"""Edits drawn at random, most of them wrong."""

from typing import Any

from hypothesis import strategies as st
from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, MaskFreeEdit, Outpaint, Vary

WORD = st.integers(0, 2**32 - 1) | st.integers(0, 300)
NUMBER = st.floats(width=32) | st.floats(0, 1, width=32)


def edits(files: st.SearchStrategy[bytes]) -> st.SearchStrategy[dict[str, Any]]:
    """Returns fields of a request: one edit of numbers in and out of their range.

    Args:
        files: Draws pictures and masks.
    """
    return st.one_of(
        st.builds(
            lambda **fields: {"inpaint": Inpaint(**fields)},
            image=files,
            mask=files,
            feather_px=WORD,
            composite=st.booleans(),
        ),
        st.builds(
            lambda **fields: {"outpaint": Outpaint(**fields)},
            image=files,
            left_px=WORD,
            top_px=WORD,
            right_px=WORD,
            bottom_px=WORD,
        ),
        st.builds(
            lambda **fields: {"mask_free_edit": MaskFreeEdit(**fields)},
            image=files,
            iterations=WORD,
            fraction=NUMBER,
            return_iterations=st.lists(WORD, max_size=20),
        ),
        st.builds(
            lambda **fields: {"mask_free_edit": MaskFreeEdit(**fields)},
            image=files,
            strength=NUMBER,
        ),
        st.builds(lambda **fields: {"vary": Vary(**fields)}, image=files, strength=NUMBER),
    )
