"""Split clips into those that a model is trained on and those it is evaluated on."""

import warnings

import numpy as np
import pandas as pd

from .data import split_labels

GROUPS = ("group", "freesound_id")  # columns that tell which clips must stay together; the first present is used
CONTENT = "content_hash"  # column with a hash of the sound (`MelDataset`) or of its file (`own`): the same for copies


def split(table: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers of the training and validation clips: validation is the first of five folds.

    That is the paper's random 80% and 20% (section III), unless a column `fold` has other folds. Raises ValueError as
    `folds` does.
    """
    fold = folds(table, 5, seed)
    return np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)


def folds(table: pd.DataFrame, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each clip, 0 to `n_folds` - 1, int (clips,): random, stratified by class, grouped.

    A clip with several labels counts as a class of its own if `n_folds` clips or more have the same labels, else as its
    first label. Clips of one group (column `group` or, if absent, `freesound_id`) share a fold, and so do copies (same
    `content_hash`); a clip whose field there is empty is a group of its own. One group of two clips is enough for
    another algorithm, and so for entirely other folds, of which number 0 is the one whose size is nearest to its share.
    If the table has a column `fold`, it is used as is, its values in order. There are fewer folds if there are fewer
    clips or groups. Prints a line if so, if a class is in one fold only, or if the column splits a group. Raises
    ValueError if there is one group, or if the column has gaps, a single value, or one without a digit.
    """
    fold = _given_folds(table) if "fold" in table else _drawn_folds(table, n_folds, seed)
    labels = pd.DataFrame({"label": split_labels(table["labels"]).to_numpy(), "fold": fold}).explode("label")
    for label, count in labels.groupby("label")["fold"].nunique().items():
        if count == 1:
            print(f"All clips of {label} are in one fold, so no model evaluated on them has been trained on one.")
    return fold


def _given_folds(table: pd.DataFrame) -> np.ndarray:
    column = table["fold"]
    names = column.astype(str).str.strip()
    if empty := int((column.isna() | (names == "")).sum()):
        raise ValueError(f"the column fold is empty in {empty} rows: fill or remove it.")
    if len(words := names[~names.str.contains(r"\d")]):  # "train" and "valid" would change places
        raise ValueError(f"the column fold has the value {words.iloc[0]!r}: number the folds, or remove the column.")
    values = sorted(set(names), key=lambda name: (len(name), name))  # 2 before 10
    if len(values) < 2:
        raise ValueError(f"the column fold is {values[0]!r} for every clip: use two or more values, or remove it.")
    if shared := int((names.groupby(groups(table)).nunique() > 1).sum()):
        print(f"The column fold puts {shared} groups of clips into several folds: validation leaks into training.")
    return names.map({name: number for number, name in enumerate(values)}).to_numpy()


def _drawn_folds(table: pd.DataFrame, n_folds: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

    group, strata = groups(table), _strata(table, n_folds)
    n_groups = len(np.unique(group))
    grouped = n_groups < len(table)
    if n_groups < 2:
        remedy = "add clips of another, or remove sounds that several groups share"
        raise ValueError(f"{len(table)} clips of one group cannot be split: {remedy}.")
    if n_groups < n_folds:
        print(f"{n_groups} clips, or groups of clips, fill only {n_groups} of {n_folds} folds.")
        n_folds = n_groups
    rare = np.bincount(strata).max() < n_folds
    if grouped or rare:  # shuffled here: with shuffle=True the scikit-learn of Kaggle and Colab does not stratify
        shuffled = np.random.default_rng(seed).permutation(n_groups)[group]
        # scikit-learn refuses if every class has fewer clips than folds, so it gets one that has as many.
        more = np.arange(n_folds if rare else 0)
        strata = np.concatenate([strata, np.full(len(more), strata.max() + 1)])
        fold = _fold_of_each(StratifiedGroupKFold(n_folds), strata, np.concatenate([shuffled, n_groups + more]))
        fold = fold[: len(table)]
        if len(np.unique(fold)) < n_folds:  # so few groups cannot be stratified
            fold = _fold_of_each(GroupKFold(n_folds), shuffled, shuffled)  # it ignores strata
    else:
        fold = _fold_of_each(StratifiedKFold(n_folds, shuffle=True, random_state=seed), strata, None)
    if grouped:  # scikit-learn puts the largest group into fold 0, which is the validation split: renumber the folds
        sizes, shuffled_folds = np.bincount(fold), np.random.default_rng(seed).permutation(n_folds)
        nearest_first = sorted(shuffled_folds, key=lambda number: abs(sizes[number] - len(table) / n_folds))
        new_number = np.argsort(nearest_first)  # of each old number: the inverse permutation
        fold = new_number[fold]
    return fold


def _fold_of_each(splitter, strata: np.ndarray, group: np.ndarray | None) -> np.ndarray:  # noqa: ANN001
    """Return the fold in which each clip is held out by this splitter of scikit-learn."""
    fold = np.empty(len(strata), dtype=int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # it misses some folds
        for number, (_, rows) in enumerate(splitter.split(strata, strata, group)):
            fold[rows] = number
    return fold


def _strata(table: pd.DataFrame, n_folds: int) -> np.ndarray:
    """Number the strata, which are spread evenly over the folds: int (clips,), equal within a stratum."""
    labels = split_labels(table["labels"])
    together = labels.map(lambda some: ",".join(sorted(set(some))))
    often = together.map(together.value_counts()) >= n_folds
    return pd.factorize(together.where(often, labels.str[0]))[0]


def group_column(*tables: pd.DataFrame) -> str | None:
    """Return the column in all `tables` that groups clips to keep together: by recording, speaker or uploader."""
    return next((column for column in GROUPS if all(column in table for table in tables)), None)


def groups(table: pd.DataFrame) -> np.ndarray:
    """Number the groups of clips to keep together, and of copies, from 0: int (clips,), equal within a group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [np.empty((2, 0), dtype=int)]  # of a graph of the clips and the values that they share
    for number, column in enumerate((group_column(table), CONTENT), 1):
        if column in table:
            clips = np.flatnonzero(table[column].notna() & (table[column] != ""))
            edges.append(np.stack([clips, number * len(table) + pd.factorize(table[column].iloc[clips])[0]]))
    edges = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(edges.shape[1]), edges), shape=(3 * len(table), 3 * len(table)))
    return np.unique(connected_components(graph, directed=False)[1][: len(table)], return_inverse=True)[1]


def apart(table: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Return row numbers of the clips in `table` that share no group with `others` and are not copies of them."""
    columns = [name for name in (group_column(table, others), CONTENT) if name in table and name in others]
    group = groups(pd.concat([table[columns], others[columns]], ignore_index=True))
    return np.flatnonzero(~np.isin(group[: len(table)], group[len(table) :]))
