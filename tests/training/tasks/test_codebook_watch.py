"""The watch over a codebook: a collapse stops the run, and the last good state is named."""

import pytest

from training.tasks.codebook_watch import CodebookCollapse, CodebookWatch

REPORT_EVERY = 20


def test_a_run_with_enough_codes_in_use_is_healthy() -> None:
    watch = CodebookWatch()
    assert all(watch.healthy(step, {"usage": 0.05}, 0) for step in range(0, 5000, REPORT_EVERY))


def test_a_collapse_of_a_thousand_steps_stops_the_run_and_names_the_last_good_state() -> None:
    watch = CodebookWatch()
    assert watch.healthy(5000, {"usage": 0.4}, 4500)
    for step in range(5020, 6020, REPORT_EVERY):
        assert not watch.healthy(step, {"usage": 0.021}, 5000)
    with pytest.raises(
        CodebookCollapse,
        match=r"2\.10% of its codes are in use at step 6020, and less than 5% were for 1000 steps; "
        r"the last good saved state is that of step 5000: .*--losses\.revive-below",
    ):
        watch.healthy(6020, {"usage": 0.021}, 5000)


def test_a_recovery_begins_the_count_anew() -> None:
    watch = CodebookWatch()
    for step in range(0, 1000, REPORT_EVERY):
        watch.healthy(step, {"usage": 0.01}, 0)
    assert watch.healthy(1000, {"usage": 0.06}, 0)
    assert not watch.healthy(1020, {"usage": 0.01}, 0)
    assert not watch.healthy(2000, {"usage": 0.01}, 0)
    with pytest.raises(CodebookCollapse, match="no state was saved before: start anew with"):
        watch.healthy(2020, {"usage": 0.01}, 0)
