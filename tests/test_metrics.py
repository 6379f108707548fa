import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    f1_score,
    label_ranking_average_precision_score,
)

from utils import metrics


def by_definition(targets, scores):
    """LWLRAP clip by clip and label by label, as the paper defines it."""
    precisions = []
    for labels, clip in zip(targets, scores):
        for label in np.flatnonzero(labels):
            ranked_above = [c for c in range(len(clip)) if clip[c] >= clip[label]]
            precisions.append(sum(labels[c] for c in ranked_above) / len(ranked_above))
    return np.mean(precisions)


def random_case(rng, least_classes=1):
    """Targets and scores of any size, many scores tied, some clips without a label or with all."""
    shape = rng.integers(1, 40), rng.integers(least_classes, 12)
    targets = (rng.random(shape) < rng.uniform(0.05, 0.9)).astype(float)
    targets[rng.random(len(targets)) < 0.2] = 0
    targets[rng.integers(len(targets)), rng.integers(shape[1])] = 1
    return targets, rng.integers(0, rng.integers(2, 20), shape) / 7


def test_lwlrap_equals_scikit_learn_and_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(300):
        targets, scores = random_case(rng)
        oracle = label_ranking_average_precision_score(targets, scores, sample_weight=targets.sum(axis=1))
        assert metrics.lwlrap(targets, scores) == pytest.approx(oracle, abs=1e-9)
        assert metrics.lwlrap(targets, scores) == pytest.approx(by_definition(targets, scores), abs=1e-9)


def test_lwlrap_is_the_label_weighted_mean_of_its_classes():
    rng = np.random.default_rng(1)
    for _ in range(100):
        targets, scores = random_case(rng)
        weight = targets.sum(axis=0) / targets.sum()
        per_class = metrics.per_class_lwlrap(targets, scores)
        assert np.array_equal(np.isnan(per_class), weight == 0)
        assert np.nansum(per_class * weight) == pytest.approx(metrics.lwlrap(targets, scores), abs=1e-9)


@pytest.mark.parametrize(
    ("targets", "scores", "sentence"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2)), "no label"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), "not finite"),
        (np.ones((3, 2)), np.zeros((2, 3)), "equal shapes"),
    ],
)
def test_lwlrap_rejects_what_it_cannot_rank(targets, scores, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics.lwlrap(targets, scores)


def test_top_k_uses_the_first_label():
    scores = np.array([[0.5, 0.4, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]])
    assert [metrics.top_k_accuracy(np.array([2, 2]), scores, k) for k in (1, 2, 3)] == [0, 0.5, 1]
    alone = [metrics.top_k_accuracy(np.array([2]), scores[:1], k) for k in (2, 3)]
    assert alone == [0, 1]  # the first clip's rank is 3
    with pytest.raises(ValueError, match="not finite"):
        metrics.top_k_accuracy(np.array([2, 2]), np.full((2, 4), np.nan))


def test_per_class_table_by_hand():
    targets = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 1]])  # none of class c
    scores = np.array([[0.5, 0.2, 0.9, 0.1], [0.4, 0.6, 0.0, 0.0], [0.5, 0.9, 0.0, 0.2]])
    table = metrics.per_class_table(targets, scores, list("abcd"), threshold=0.5).T.round(3)
    assert list(table) == ["b", "a", "d"]  # best F1 first
    columns = ["precision", "recall", "F1", "AP"]
    expected = {"b": [1, 1, 1, 1], "a": [0.5, 0.5, 0.5, 0.583], "d": [0, 0, 0, 1]}
    assert table.loc[columns].to_dict("list") == expected


def test_f1_over_threshold_matches_scikit_learns_macro_average():
    rng = np.random.default_rng(3)
    for _ in range(50):
        targets, scores = random_case(rng, least_classes=2)
        there = targets.any(axis=0)
        for threshold, f1 in metrics.f1_over_threshold(targets, scores, np.array([0, 0.3, 1, 9])).items():
            found = scores[:, there] >= threshold
            oracle = [f1_score(a, b, zero_division=0) for a, b in zip(targets[:, there].T, found.T)]
            assert f1 == pytest.approx(np.mean(oracle))


def test_gains_are_over_the_baseline_and_the_middle_of_equal_thresholds_is_chosen():
    targets = np.array([[1, 0, 0], [0, 1, 1]])
    row = metrics.lwlrap_with_interval(targets, targets, 1 - targets)
    assert row["gain"] == pytest.approx(1 - metrics.lwlrap(targets, 1 - targets))
    assert row["gain"] > 0
    assert row["gain low"] <= row["gain"] <= row["gain high"]
    assert metrics.by_number_of_labels(targets, targets)["clips"].to_dict() == {"one label": 1, "several labels": 1}
    assert metrics.best_threshold(pd.Series([0.1, 0.5, 0.5, 0.5, 0.2], [0, 0.1, 0.2, 0.3, 0.4])) == 0.2


def test_lwlrap_of_a_clip_by_hand():
    targets, scores = np.array([0, 1, 0, 1]), np.array([0.5, 0.9, 0.4, 0.3])
    table = metrics.lwlrap_by_hand(targets, scores, list("abcd"))
    assert list(table.index) == ["b", "d"]
    assert table["rank"].tolist() == [1, 4]
    assert table["precision"].tolist() == [1, 0.5]
    rng = np.random.default_rng(4)
    for _ in range(50):
        targets, scores = random_case(rng)
        one = targets.any(axis=1).argmax()
        by_hand = metrics.lwlrap_by_hand(targets[one], scores[one], [str(c) for c in range(targets.shape[1])])
        assert by_hand["precision"].mean() == pytest.approx(metrics.lwlrap(targets[[one]], scores[[one]]))


def test_confusions_count_clips_whose_highest_score_is_no_label():
    targets = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.1], [0.1, 0.7, 0.0], [0.1, 0.2, 0.6]])
    taken = {
        (row.label, row[2]): row.clips
        for row in metrics.most_confused_pairs(targets, scores, ["Bark", "Run", "Tap"]).itertuples()
    }
    assert taken == {("Bark", "Run"): 1, ("Bark", "Tap"): 1, ("Run", "Tap"): 1}


def test_the_bootstrap_interval_matches_resampling_clips():
    rng = np.random.default_rng(1)
    targets, scores = (rng.random((60, 9)) < 0.2).astype(int), rng.random((60, 9))
    labeled = np.flatnonzero(targets.any(axis=1))
    drawn = (rng.choice(labeled, len(labeled)) for _ in range(4000))
    slowly = np.quantile([metrics.lwlrap(targets[rows], scores[rows]) for rows in drawn], [0.025, 0.975])
    assert np.allclose(metrics.bootstrap_interval(targets, scores), slowly, atol=0.01)
    assert metrics.bootstrap_interval(np.eye(3), np.eye(3)) == (1, 1)

    other = scores + rng.normal(0, 0.1, scores.shape)
    drawn = (rng.choice(labeled, len(labeled)) for _ in range(4000))
    slowly = [
        metrics.lwlrap(targets[rows], scores[rows]) - metrics.lwlrap(targets[rows], other[rows]) for rows in drawn
    ]
    slowly = np.quantile(slowly, [0.025, 0.975])
    assert np.allclose(metrics.bootstrap_interval(targets, scores, other), slowly, atol=0.005)
    assert metrics.bootstrap_interval(targets, scores, scores) == (0, 0)
    with pytest.raises(ValueError, match="no label"):
        metrics.bootstrap_interval(np.zeros((3, 3)), np.eye(3))
