"""LWLRAP with its interval, top-k accuracy and F1, and their details by clip and by class.

`targets`, zeros and ones, and `scores`, any finite numbers, are arrays of shape (clips, classes).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def lwlrap(targets: np.ndarray, scores: np.ndarray) -> float:
    """Compute label-weighted label-ranking average precision (paper, section V; the competition's metric).

    The precision of a label in a clip is, among the classes scored at least as high, the share that are labels of the
    clip too. LWLRAP is its mean over all labels, each with equal weight. Tied scores share the worst rank of the tie,
    as in scikit-learn, so a constant score gains nothing. Clips without a label do not count.

    Raises ValueError if shapes differ, a score is not finite, or there is no label at all.
    """
    return float(_precision_of_labels(targets, scores)[1].mean())


def per_class_lwlrap(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Compute the mean precision of the labels of each class, (classes,); NaN for a class without a label.

    LWLRAP is the mean of these, weighted by each class's number of labels.
    """
    classes, precision = _precision_of_labels(targets, scores)
    return pd.Series(precision).groupby(classes).mean().reindex(range(targets.shape[1])).to_numpy()


def _precision_of_labels(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class and precision of every label, both (labels,)."""
    targets, scores = np.asarray(targets) > 0, np.asarray(scores)
    if targets.ndim != 2 or targets.shape != scores.shape:
        raise ValueError(f"targets {targets.shape} and scores {scores.shape} must have equal shapes, (clips, classes).")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite.")
    clips, classes = np.nonzero(targets)
    if not len(clips):
        raise ValueError("targets has no label, so there is nothing to rank.")
    at_least = scores[clips] >= scores[clips, classes, None]
    return classes, (at_least & targets[clips]).sum(axis=1) / at_least.sum(axis=1)


def top_k_accuracy(first_label: np.ndarray, scores: np.ndarray, k: int = 5) -> float:
    """Return the share of clips whose first listed label is among the `k` highest scores (paper, section V).

    `first_label`: class indices (clips,); `scores`: (clips, classes). Tied scores share the worst rank of the tie.
    Raises ValueError if the shapes do not fit or a score is not finite.
    """
    first_label, scores = np.asarray(first_label), np.asarray(scores)
    if first_label.ndim != 1 or len(first_label) != len(scores):
        raise ValueError(f"first_label {first_label.shape} must hold one class index for each of {len(scores)} clips.")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite.")
    rank = (scores >= np.take_along_axis(scores, first_label[:, None], axis=1)).sum(axis=1)
    return float((rank <= k).mean())


def per_class_table(targets: np.ndarray, scores: np.ndarray, classes: list[str], threshold: float) -> pd.DataFrame:
    """Tabulate precision, recall, F1, average precision (AP), LWLRAP and clips of each class, best F1 first.

    Scores at or above `threshold` count for precision, recall and F1; precision is 0 where none does. Classes without a
    clip are left out (paper, tables 2 to 5).
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    precision, recall, f1, clips = precision_recall_fscore_support(
        targets > 0, scores >= threshold, average=None, zero_division=0
    )
    ap = [average_precision_score(targets[:, i] > 0, scores[:, i]) if n else np.nan for i, n in enumerate(clips)]
    columns = {
        "precision": precision, "recall": recall, "F1": f1, "AP": ap, "LWLRAP": per_class_lwlrap(targets, scores),
        "clips": clips,
    }  # fmt: skip
    table = pd.DataFrame(columns, index=pd.Index(classes, name="class"))
    return table[table["clips"] > 0].sort_values(["F1", "LWLRAP"], ascending=False)


def f1_over_threshold(targets: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> pd.Series:
    """Return F1 at each threshold (the index), averaged over the classes that have a clip."""
    labels = np.asarray(targets) > 0
    present = labels.any(axis=0)
    labels, scores = labels[:, present], scores[:, present]

    def macro_f1(detected: np.ndarray) -> float:
        return (2 * (labels & detected).sum(axis=0) / (labels.sum(axis=0) + detected.sum(axis=0))).mean()

    f1 = [macro_f1(scores >= threshold) for threshold in thresholds]
    return pd.Series(f1, index=pd.Index(thresholds, name="threshold"), name="F1")


def best_threshold(curve: pd.Series) -> float:
    """Return the threshold with the highest F1, given F1 over the threshold; of several, the middle one."""
    highest = curve.index[curve == curve.max()]
    return highest[len(highest) // 2]


def lwlrap_by_hand(targets: np.ndarray, scores: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Compute one clip's LWLRAP by hand, from targets and scores (classes,): a row per label, highest score first.

    Columns: `score`, `rank` among all classes, `labels so far`, and their share, `precision`, whose mean is the LWLRAP.
    """
    labels = np.flatnonzero(targets)
    labels = labels[np.argsort(-scores[labels], kind="stable")]
    at_least = scores >= scores[labels, None]
    rank, found = at_least.sum(axis=1), (at_least & (np.asarray(targets) > 0)).sum(axis=1)
    columns = {"score": scores[labels], "rank": rank, "labels so far": found, "precision": found / rank}
    return pd.DataFrame(columns, index=pd.Index(np.asarray(classes)[labels], name="label"))


def most_confused_pairs(targets: np.ndarray, scores: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Count which classes are confused with which: columns `label`, `confused with`, `clips`, most clips first.

    A clip whose highest score is not one of its labels counts once for each of them.
    """
    highest = scores.argmax(axis=1)
    missed = targets[np.arange(len(targets)), highest] == 0
    clips, labels = np.nonzero(targets * missed[:, None])
    names = np.asarray(classes)
    table = pd.DataFrame({"label": names[labels], "confused with": names[highest[clips]]})
    return table.value_counts().reset_index(name="clips")


def bootstrap_interval(
    targets: np.ndarray, scores: np.ndarray, baseline: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the LWLRAP, from 1,000 resamples of the clips.

    With `baseline`, the scores of another model for the same clips, that of the difference from its LWLRAP (paired
    bootstrap): narrower than the two intervals suggest, as both models find the same clips hard.
    """
    _, precision = _precision_of_labels(targets, scores)
    if baseline is not None:
        precision = precision - _precision_of_labels(targets, baseline)[1]
    labels = (np.asarray(targets) > 0).sum(axis=1)
    total = np.bincount(np.repeat(np.arange(len(labels)), labels), precision, minlength=len(labels))
    labels, total = labels[labels > 0], total[labels > 0]
    generator = np.random.default_rng(0)
    drawn = (generator.integers(len(labels), size=len(labels)) for _ in range(1000))
    low, high = np.quantile([total[clips].sum() / labels[clips].sum() for clips in drawn], [0.025, 0.975])
    return float(low), float(high)


def lwlrap_with_interval(
    targets: np.ndarray, scores: np.ndarray, baseline: np.ndarray | None = None
) -> dict[str, float]:
    """Return `LWLRAP` and the `low` and `high` end of its interval.

    With the scores of a `baseline`, also the `gain` over it, `gain low` and `gain high`. See `bootstrap_interval`.
    """
    low, high = bootstrap_interval(targets, scores)
    row = {"LWLRAP": lwlrap(targets, scores), "low": low, "high": high}
    if baseline is not None:
        low, high = bootstrap_interval(targets, scores, baseline)
        row |= {"gain": row["LWLRAP"] - lwlrap(targets, baseline), "gain low": low, "gain high": high}
    return row


def summary(targets: np.ndarray, first_label: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return `LWLRAP` and `top-5` accuracy of `scores`, (clips, classes); `first_label`, (clips,), as class indices."""
    return {"LWLRAP": lwlrap(targets, scores), "top-5": top_k_accuracy(first_label, scores)}


def by_number_of_labels(targets: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Return number and LWLRAP of the clips with one label and of those with several, where there are any."""
    several = (np.asarray(targets) > 0).sum(axis=1) > 1
    return lwlrap_by(np.where(several, "several labels", "one label"), targets, scores)


def lwlrap_by(group: Sequence[str], targets: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Return number and LWLRAP, with interval, of the clips of each group; `group` names that of each clip."""
    groups = pd.DataFrame({"group": group}).groupby("group").indices  # row numbers
    table = {
        name: {"clips": len(rows)} | lwlrap_with_interval(targets[rows], scores[rows]) for name, rows in groups.items()
    }
    return pd.DataFrame.from_dict(table, orient="index")
