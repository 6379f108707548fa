"""Read the competition's tables, in the layout of Kaggle or of the public release on Zenodo."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from . import files

# Clips of train_curated that the organizers named as wrong: the correct labels, or None to leave the clip out.
LABEL_CORRECTIONS: dict[str, str | None] = {
    "f76181c4.wav": "Bass_drum",
    "c7db12aa.wav": "Marimba_and_xylophone",
    "7752cc8a.wav": "Dishes_and_pots_and_pans,Chink_and_clink",
    "77b925c2.wav": None,
    "6a1f682a.wav": None,
    "1d44b0bd.wav": None,  # no signal
}

ZENODO_META = "FSDKaggle2019.meta"
TEST_LABELS = "test_labels.csv"  # in the mini set and in what `utils.own` makes; the competition's data has none
KEY_BYTES = 4096  # of a file's head, middle and tail, which identify it
LAYOUT_MARKERS = ("train_curated.csv", ZENODO_META)  # mark a folder in Kaggle's and in Zenodo's layout


class Competition:
    """The competition's data: `.classes`, and one table per set with a row per clip.

    `.curated` and `.noisy` have the columns `fname`, `labels` (comma-separated, each once) and `path`; `.test` has
    `fname` and `path`, and `labels` if they are known: from Zenodo, with `usage`, or from test_labels.csv, which the
    mini set and datasets of your own sounds have. `.noisy` is empty if the folder has no noisy set, or none of its
    sounds, which is printed. Other columns are kept as text.

    Tables are CSV in UTF-8, with or without a byte-order mark; the order of columns, the line endings and spaces around
    a name, a label or any other field do not matter; no field has a line break. Raises FileNotFoundError or ValueError,
    naming the file and the remedy, if the folder is in neither layout, a table cannot be read, lacks a column or lists
    no clip, a label is empty or not a class, there are fewer than two classes, or a clip is listed twice, is not a
    plain file name or does not exist.
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
            neither = f"neither train_curated.csv (Kaggle's layout) nor {ZENODO_META}/ (Zenodo's)"
            own = "of a folder of sounds, first make a dataset: python -m utils.own FOLDER TARGET"
            raise FileNotFoundError(f"{self.folder} holds {neither}: give the folder that does ({own}).")

    def __repr__(self) -> str:
        clips = f"{len(self.curated)} curated, {len(self.noisy)} noisy and {len(self.test)} test clips"
        return f"{len(self.classes)} classes; {clips}"

    def _read_kaggle(self) -> None:
        sample_file = self.folder / "sample_submission.csv"
        sample = read_table(sample_file, ["fname"])
        self.classes = check_classes(list(sample.columns.drop("fname")), sample_file)
        self.curated = self._labeled("train_curated.csv", "train_curated")
        self.noisy = self._labeled("train_noisy.csv", "train_noisy", optional=True)
        self.test = _with_paths(sample[["fname"]], sample_file, self.folder / "test")
        if (self.folder / TEST_LABELS).is_file():
            labeled = self._labeled(TEST_LABELS, "test").set_index("fname")
            if set(labeled.index) != set(sample["fname"]):
                other = f"lists other clips than {sample_file.name}"
                raise ValueError(f"{self.folder / TEST_LABELS} {other}: correct the list or remove the file.")
            self.test = labeled.loc[sample["fname"]].reset_index()

    def _read_zenodo(self) -> None:
        audio = "FSDKaggle2019.audio_"  # prefix of the folders
        curated_file = f"{ZENODO_META}/train_curated_post_competition.csv"
        labels = read_table(self.folder / curated_file, ["fname", "labels"])["labels"]
        vocabulary = self.folder / ZENODO_META / "vocabulary.csv"
        self.classes = _read_vocabulary(vocabulary, set(split_labels(labels).explode()))
        self.curated = self._labeled(curated_file, f"{audio}train_curated")
        noisy_file = f"{ZENODO_META}/train_noisy_post_competition.csv"
        self.noisy = self._labeled(noisy_file, f"{audio}train_noisy", optional=True)
        self.test = self._labeled(f"{ZENODO_META}/test_post_competition.csv", f"{audio}test")

    def _labeled(self, name: str, audio: str, optional: bool = False) -> pd.DataFrame:
        file, sounds = self.folder / name, self.folder / audio
        if optional and not (sounds.is_dir() and any(sounds.iterdir())):
            if file.exists():
                print(f"{file} lists clips, but {audio} is empty or missing: continuing without the noisy set.")
            return pd.DataFrame({"fname": [], "labels": [], "path": []}, dtype=str)
        table = read_table(file, ["fname", "labels"])
        labels = split_labels(table["labels"]).explode()
        unknown = labels[~labels.isin(self.classes)]
        if len(unknown):
            label = unknown.iloc[0]
            what = "an empty label"
            remedy = f"add the label or remove the {'file' if name == TEST_LABELS else 'row'}"
            if label:
                what = f"the label {label!r}, which is not one of the {len(self.classes)} classes"
                remedy = "correct the label or add the class"
            raise ValueError(f"{file}: {table['fname'][unknown.index[0]]} has {what}: {remedy}.")
        return _with_paths(table, file, sounds)


def read_table(file: Path, columns: list[str], unique: Sequence[str] = ("fname",)) -> pd.DataFrame:
    """Read a CSV file as a table of text, with one row per clip. Raises as `Competition` does.

    No two rows may agree in all columns of `unique`, as far as there are any.
    """
    lines = _read_lines(file)
    header = next(lines, (1, []))[1]
    if twice := [column for column in header if header.count(column) > 1]:
        raise ValueError(f"{file} has two columns {twice[0]!r}: rename or remove one.")
    if missing := [column for column in columns if column not in header]:
        remedy = f"its first line must name {', '.join(columns)}, separated by commas"
        raise ValueError(f"{file} has no column {missing[0]!r}: {remedy}.")
    rows = []
    for line, row in lines:
        if len(row) != len(header):
            wrong = f"the row has {len(row)} fields instead of {len(header)}"
            raise ValueError(f"{file}, line {line}: {wrong}: put quotes around fields that contain commas.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{file} lists no clips: add a row for each.")
    table = pd.DataFrame(rows, columns=header, dtype=str)
    repeated = table["fname"][table[[name for name in unique if name in table]].duplicated()]
    if len(repeated):
        raise ValueError(f"{file} lists {repeated.iloc[0]} more than once: keep one of the rows.")
    if "labels" in table:
        table["labels"] = [",".join(dict.fromkeys(re.split(r"\s*,\s*", labels))) for labels in table["labels"]]
    return table


def _read_lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number where each non-blank row ends, and its fields without spaces around them."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: restore it from the competition's data.")
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file}, line {line}: the text is not UTF-8: save the file again as CSV in UTF-8.") from error
    reader, line = csv.reader(io.StringIO(text, newline=None), skipinitialspace=True), 1
    try:
        for row in reader:
            if any("\n" in field for field in row):  # all rows up to the next quote may be in this field
                quote = "a field has a quote that is not closed, or a line break"
                raise ValueError(f"{file}, line {line}: {quote}: correct it.")
            line = reader.line_num + 1
            fields = [field.strip() for field in row]
            if any(fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: the text is not CSV ({error}): correct it.") from error


def _with_paths(table: pd.DataFrame, file: Path, audio: Path) -> pd.DataFrame:
    """Add a column `path` to `table`; every clip must be a plain file name in the folder `audio`."""
    if not audio.is_dir():
        raise FileNotFoundError(f"{audio} does not exist, but {file.name} lists its clips: unpack the audio there.")
    if outside := [name for name in table["fname"] if os.path.basename(name) != name or name in ("", ".", "..")]:
        raise ValueError(f"{file} lists {outside[0]!r}, which is not a plain file name: correct the row.")
    listed = set(os.listdir(audio))
    # One listing, since asking for each file takes long on a mounted drive; but macOS accepts any Unicode form.
    absent = [fname for fname in table["fname"] if fname not in listed and not os.path.isfile(audio / fname)]
    if absent:
        files.refuse_undecodable(sorted(listed), audio)
        more = f" and {len(absent) - 1} more" if absent[1:] else ""
        raise FileNotFoundError(
            f"{file} lists {absent[0]}{more} not found in {audio}: add the audio or remove the rows."
        )
    return table.assign(path=[str(audio / fname) for fname in table["fname"]])


def _read_vocabulary(file: Path, labels: set[str]) -> list[str]:
    """Read the classes, in alphabetical order, from the column of vocabulary.csv with most of the labels in use."""
    columns = [set(column) for column in zip_longest(*(fields for _, fields in _read_lines(file)), fillvalue="")]
    classes = max(columns, key=lambda column: len(column & labels), default=set())
    return check_classes(sorted(classes - {"", "label", "labels", "name", "display_name"}), file)


def check_classes(names: list[str], source: Path) -> list[str]:
    """Return `names`, from the file or folder `source`. Raises ValueError if they cannot be the classes."""
    if "" in names:
        raise ValueError(f"{source} has a column without a name: remove it.")
    for name in {"fname", "labels"} & set(names):
        raise ValueError(f"{source}: a class cannot be called {name!r}, which is a column of the tables: rename it.")
    if len(names) < 2:
        too_few = f"too few classes ({len(names)}, and a model needs at least two)"
        raise ValueError(f"{source} names {too_few}: add the others.")
    return names


def split_labels(labels: pd.Series) -> pd.Series:
    """Split each row's labels: 'Bark,Run' to ['Bark', 'Run']."""
    return labels.str.split(",")


def multi_hot(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """Encode each clip's labels as zeros and ones, float32 (clips, classes)."""
    labels = split_labels(table["labels"].reset_index(drop=True)).explode()
    targets = np.zeros((len(table), len(classes)), dtype=np.float32)
    targets[labels.index, _class_index(labels, classes)] = 1
    return targets


def clips_per_class(sets: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count the clips of each class that has any (the rows) in each of the labeled tables (the columns)."""
    counts = {name: split_labels(table["labels"]).explode().value_counts() for name, table in sets.items()}
    return pd.DataFrame(counts).fillna(0).astype(int).sort_index()


def first_label(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """Return the class index of each clip's first listed label, used for top-5 accuracy; int64 (clips,)."""
    return _class_index(split_labels(table["labels"]).str[0], classes)


def _class_index(labels: pd.Series, classes: list[str]) -> np.ndarray:
    index = pd.Index(classes).get_indexer(labels)
    if (index < 0).any():
        raise ValueError(f"{labels[index < 0].iloc[0]!r} is not one of the {len(classes)} classes.")
    return index


def label_pairs(table: pd.DataFrame) -> pd.Series:
    """Count the clips with both labels of each pair that occurs, most first; the index is like 'Bark + Run'."""
    each = (combinations(sorted(set(labels)), 2) for labels in split_labels(table["labels"]))
    counts = pd.Series([" + ".join(pair) for pairs in each for pair in pairs], dtype=str).value_counts().sort_index()
    return counts.sort_values(ascending=False, kind="stable")


def correct_labels(curated: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Apply LABEL_CORRECTIONS to `curated`, dropping clips whose correct label is not one of `classes`."""
    labels = [LABEL_CORRECTIONS.get(fname, label) for fname, label in zip(curated["fname"], curated["labels"])]
    known = [label is not None and set(label.split(",")) <= set(classes) for label in labels]
    return curated.assign(labels=labels)[known].reset_index(drop=True)


def content_keys(paths: Iterable[str]) -> list[str | None]:
    """Return for each file a hash of its size and first, middle and last 4 KB; None if it cannot be opened."""
    with ThreadPoolExecutor() as pool:  # a mounted drive takes long to open a file, but opens many at once
        return list(pool.map(_content_key, paths))


def _content_key(path: str) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            known = hashlib.sha256(str(size).encode())
            for place in (0, (size - KEY_BYTES) // 2, size - KEY_BYTES):
                file.seek(max(0, place))
                known.update(file.read(KEY_BYTES))
    except OSError:
        return None
    return known.hexdigest()[:16]
