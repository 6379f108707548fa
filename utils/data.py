"""Reading the competition's tables, in the layout of Kaggle or of the public release on Zenodo."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

# Clips of train_curated found wrong by listening: the labels they should have, or None to leave the clip out.
KNOWN_BAD: dict[str, str | None] = {
    "f76181c4.wav": "Bass_drum",
    "c7db12aa.wav": "Marimba_and_xylophone",
    "7752cc8a.wav": "Dishes_and_pots_and_pans,Chink_and_clink",
    "77b925c2.wav": None,
    "6a1f682a.wav": None,
    "1d44b0bd.wav": None,  # no signal
}

ZENODO_META = "FSDKaggle2019.meta"
MARKS = ("train_curated.csv", ZENODO_META)  # what tells a folder in Kaggle's layout, and one in Zenodo's


def is_competition(folder: Path) -> bool:
    """Whether `folder` holds the tables of either layout."""
    return any((folder / name).exists() for name in MARKS)


class Competition:
    """The competition's data: `.classes`, and one table per set with a row per clip.

    `.curated` and `.noisy` have the columns `fname`, `labels` (comma-separated, as published) and `path`;
    `.test` has `fname` and `path`, and in the Zenodo layout also `labels` and `usage`.
    `.noisy` has no rows where the folder has no noisy set.

    Raises FileNotFoundError or ValueError, naming the file and the remedy, if the folder is in neither
    layout, a table lacks a column, a label is not a class, or a listed clip is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is not a folder: give the folder that holds train_curated.csv.")
        if (self.folder / "train_curated.csv").is_file():
            self._read_kaggle()
        elif (self.folder / ZENODO_META).is_dir():
            self._read_zenodo()
        else:
            raise FileNotFoundError(
                f"{self.folder} holds neither train_curated.csv (Kaggle's layout) nor {ZENODO_META}/ (Zenodo's): give the folder that does."
            )

    def __repr__(self) -> str:
        return f"{len(self.classes)} classes; {len(self.curated)} curated, {len(self.noisy)} noisy and {len(self.test)} test clips"

    def _read_kaggle(self) -> None:
        sample_file = self.folder / "sample_submission.csv"
        sample = _read_table(sample_file, ["fname"])
        self.classes = [column for column in sample.columns if column != "fname"]
        if not self.classes:
            raise ValueError(f"{sample_file} has no class columns: it needs fname and one column a class.")
        self.curated = self._labelled("train_curated.csv", "train_curated")
        self.noisy = self._labelled("train_noisy.csv", "train_noisy", optional=True)
        self.test = _with_paths(sample[["fname"]], sample_file, self.folder / "test")

    def _read_zenodo(self) -> None:
        def audio(name: str) -> str:
            return f"FSDKaggle2019.audio_{name}"

        curated_file = f"{ZENODO_META}/train_curated_post_competition.csv"
        labels = _read_table(self.folder / curated_file, ["fname", "labels"])["labels"]
        self.classes = _read_vocabulary(self.folder / ZENODO_META / "vocabulary.csv", set(split_labels(labels).explode()))
        self.curated = self._labelled(curated_file, audio("train_curated"))
        self.noisy = self._labelled(f"{ZENODO_META}/train_noisy_post_competition.csv", audio("train_noisy"), optional=True)
        self.test = self._labelled(f"{ZENODO_META}/test_post_competition.csv", audio("test"))

    def _labelled(self, csv: str, audio: str, optional: bool = False) -> pd.DataFrame:
        file = self.folder / csv
        if optional and not file.exists() and not (self.folder / audio).exists():
            return pd.DataFrame({"fname": [], "labels": [], "path": []}, dtype=str)
        table = _read_table(file, ["fname", "labels"])
        labels = split_labels(table["labels"]).explode()
        unknown = labels[~labels.isin(self.classes)]
        if len(unknown):
            raise ValueError(
                f"{file}: {table['fname'][unknown.index[0]]} has the label {unknown.iloc[0]!r}, which is not "
                f"one of the {len(self.classes)} classes: correct the label or add the class."
            )
        return _with_paths(table, file, self.folder / audio)


def _read_table(file: Path, columns: list[str]) -> pd.DataFrame:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: it comes with the competition's data, put it back.")
    table = pd.read_csv(file, dtype={"fname": str, "labels": str}, keep_default_na=False)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{file} has no column {missing[0]!r}: its first line must name {', '.join(columns)}.")
    repeated = table["fname"][table["fname"].duplicated()]
    if len(repeated):
        raise ValueError(f"{file} lists {repeated.iloc[0]} more than once: keep one of the rows.")
    return table


def _with_paths(table: pd.DataFrame, file: Path, audio: Path) -> pd.DataFrame:
    """`table` with a column `path`; every clip must be a plain name, and in the folder `audio`."""
    if not audio.is_dir():
        raise FileNotFoundError(f"{audio} is not there, but {file.name} lists its clips: unpack the audio there.")
    outside = [fname for fname in table["fname"] if os.path.basename(fname) != fname or fname in ("", ".", "..")]
    if outside:
        raise ValueError(f"{file} lists {outside[0]!r}, which is not a plain file name: correct the row.")
    there = set(os.listdir(audio))
    absent = [fname for fname in table["fname"] if fname not in there]
    if absent:
        raise FileNotFoundError(f"{file} lists {absent[0]}{_and_more(absent)} not found in {audio}: add the audio or remove the rows.")
    return table.assign(path=[str(audio / fname) for fname in table["fname"]])


def _and_more(names: list) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _read_vocabulary(file: Path, labels: set[str]) -> list[str]:
    """The classes in alphabetical order: the column of vocabulary.csv that holds most of the labels in use."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: it lists the classes, put it back.")
    vocabulary = pd.read_csv(file, header=None, dtype=str, keep_default_na=False)
    columns = [set(vocabulary[column]) for column in vocabulary]
    return sorted(max(columns, key=lambda column: len(column & labels)) - {"label", "labels", "name", "display_name"})


def split_labels(labels: pd.Series) -> pd.Series:
    """'Bark,Run' to ['Bark', 'Run'], for each row."""
    return labels.str.split(",")


def multi_hot(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """Labels of each clip as a float32 array (clips, classes) of zeros and ones."""
    labels = split_labels(table["labels"]).explode()
    rows = np.repeat(np.arange(len(table)), table["labels"].str.count(",") + 1)
    truth = np.zeros((len(table), len(classes)), dtype=np.float32)
    truth[rows, _class_index(labels, classes)] = 1
    return truth


def first_label(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """Class index of each clip's first listed label, which top-5 accuracy asks for; int64 (clips,)."""
    return _class_index(split_labels(table["labels"]).str[0], classes)


def _class_index(labels: pd.Series, classes: list[str]) -> np.ndarray:
    index = pd.Index(classes).get_indexer(labels)
    if (index < 0).any():
        raise ValueError(f"{labels[index < 0].iloc[0]!r} is not one of the {len(classes)} classes.")
    return index


def labels_together(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """How many clips carry both of two labels: (classes, classes), zeros on the diagonal."""
    truth = multi_hot(table, classes)
    together = (truth.T @ truth).astype(int)
    np.fill_diagonal(together, 0)
    return pd.DataFrame(together, index=classes, columns=classes)


def repair(curated: pd.DataFrame) -> pd.DataFrame:
    """`curated` with the labels of the known bad clips corrected, and without those that have no right label."""
    labels = [KNOWN_BAD.get(fname, label) for fname, label in zip(curated["fname"], curated["labels"])]
    return curated.assign(labels=labels)[[label is not None for label in labels]].reset_index(drop=True)


def split(table: pd.DataFrame, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training and of the validation clips, at random (paper, section III: 80% and 20%).

    Clips are shuffled, laid out class by class (by their first label), and every 1/`fraction`-th goes to
    validation. So each class keeps its share, to within a clip; one of fewer than 1/`fraction` clips may miss a side.
    Raises ValueError if a side would be empty.
    """
    shuffled = np.random.default_rng(seed).permutation(len(table))
    label = split_labels(table["labels"]).str[0].to_numpy()
    by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
    steps = np.floor(np.arange(len(table) + 1) * fraction + 0.5)
    held_out = np.diff(steps) > 0
    if held_out.all() or not held_out.any():
        raise ValueError(f"{len(table)} clips cannot be split with {fraction:.0%} for validation: add clips.")
    return np.sort(by_class[~held_out]), np.sort(by_class[held_out])
