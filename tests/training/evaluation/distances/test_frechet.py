"""The Fréchet distance against closed forms, the textbook formula and torch-fidelity's."""

import numpy as np
import pytest

from training.evaluation.distances.frechet import FeatureMoments, frechet_distance


def features(count: int, width: int, seed: int) -> np.ndarray:
    """Draws correlated features around a mean far from 0."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, width)) @ random.normal(size=(width, width))
    return (mixed + 10 * random.normal(size=width)).astype(np.float32)


def moments(values: np.ndarray, batch: int = 7) -> FeatureMoments:
    """Sums features up in batches."""
    summed = FeatureMoments()
    for start in range(0, len(values), batch):
        summed.add(values[start : start + batch])
    return summed


def test_moments_do_not_depend_on_batches() -> None:
    values = features(50, 6, seed=0)
    summed = moments(values)
    wide = values.astype(np.float64)
    assert summed.count == 50
    np.testing.assert_allclose(summed.mean(), wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(summed.covariance(), np.cov(wide, rowvar=False), rtol=1e-9)


def test_the_distance_is_that_of_the_formula_in_either_order() -> None:
    ours, theirs = moments(features(60, 5, seed=1)), moments(features(80, 5, seed=2))
    product = ours.covariance() @ theirs.covariance()
    # The eigenvalues of a square root are the square roots of the eigenvalues.
    root = np.sqrt(np.linalg.eigvals(product).astype(complex)).sum().real
    expected = np.square(ours.mean() - theirs.mean()).sum() - 2 * root
    expected += np.trace(ours.covariance() + theirs.covariance())
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(theirs, ours) == pytest.approx(expected, rel=1e-9)


def test_moving_all_features_costs_the_square_of_the_way() -> None:
    values = features(40, 4, seed=3)
    moved = values + np.array([3, 0, 4, 0], np.float32)
    assert frechet_distance(moments(values), moments(moved)) == pytest.approx(25, rel=1e-4)


def test_fewer_pictures_than_features_are_no_obstacle_and_equal_sets_are_not_apart() -> None:
    few = features(4, 12, seed=4)
    assert frechet_distance(moments(few), moments(few)) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(moments(few), moments(features(4, 12, seed=5))) > 1


def test_one_picture_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures in each set, got 9 and 1"):
        frechet_distance(moments(features(9, 3, seed=6)), moments(features(1, 3, seed=7)))


def test_the_distance_is_torch_fidelitys() -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("torch_fidelity.metric_fid")
    ours, theirs = features(90, 16, seed=8), features(70, 16, seed=9)
    statistics = [
        library.fid_features_to_statistics(torch.tensor(each).double()) for each in (ours, theirs)
    ]
    expected = library.fid_statistics_to_metric(*statistics, verbose=False)
    distance = frechet_distance(moments(ours), moments(theirs))
    assert distance == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
