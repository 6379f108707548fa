"""Your own sounds as a data set in Kaggle's layout, for all notebooks: python -m utils.own FOLDER TARGET [--csv FILE]"""

import argparse
import os
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd

from . import data, files

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MIN_CLIPS_PER_CLASS = 3  # clips of a class: as many as there are sets, to train on, to validate and to test with
RESERVED = ("", "fname", "labels")  # what other columns of the tables are called


def find_sounds(folder: str | Path) -> list[Path]:
    """The .wav, .flac, .ogg and .mp3 files in `folder` and below, sorted, hidden ones apart. Raises FileNotFoundError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one that holds the sounds.")
    files = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file())
    # macOS leaves a ._NAME.wav that is no sound beside each NAME.wav on other systems' disks.
    sounds = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    if not sounds:
        raise FileNotFoundError(f"There is no sound in {folder}: put {', '.join(SUFFIXES)} files there.")
    return sounds


def make_data_set(folder: str | Path, target: str | Path, csv: str | Path | None = None, test_fraction: float = 0.2, seed: int = 0) -> Path:
    """Write `target`, a folder in Kaggle's layout, of the sounds in `folder`; FAT_DATA=`target` then runs every notebook on them.

    The classes are the subfolders of `folder`; or `csv` lists the clips, with the columns `fname` (relative to `folder`) and `labels`
    (comma-separated). A random `test_fraction`, at least one clip, with its share of each class (by the first label), becomes the
    test set, whose labels are kept in `target`/test_labels.csv. Sounds are linked where the system allows it, else copied, as
    CLASS-NUMBER-NAME. Raises FileExistsError if `target` is there; FileNotFoundError if a sound is not; ValueError if a
    file lies outside the folder or in no class, a class cannot be called so, or the classes or their clips are too few.
    """
    folder, target = Path(folder), Path(target)
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is there already: remove it, or give another name.")
    table = _table_of_folders(folder) if csv is None else _table_of_csv(folder, Path(csv))
    classes = _classes(table, folder if csv is None else csv)
    digits = len(str(len(table)))
    table["fname"] = [_plain_name(row, number, digits) for number, row in enumerate(table.itertuples(), 1)]
    curated, test = (table.iloc[rows] for rows in data.split(table, max(2, min(round(1 / test_fraction), len(table))), seed))
    with files.atomic_folder(target) as unfinished:
        for name, part in [("train_curated", curated), ("test", test)]:
            (unfinished / name).mkdir(parents=True)
            for row in part.itertuples():
                _link(row.path, unfinished / name / row.fname)
        curated[["fname", "labels"]].to_csv(unfinished / "train_curated.csv", index=False)
        test[["fname", "labels"]].to_csv(unfinished / "test_labels.csv", index=False)
        pd.DataFrame(0, index=pd.Index(test["fname"]), columns=classes).to_csv(unfinished / "sample_submission.csv")
    return target


def _table_of_folders(folder: Path) -> pd.DataFrame:
    """`path` and `labels` of each sound: its label is the subfolder it is in, however far down."""
    paths = find_sounds(folder)
    loose = [path for path in paths if path.parent == folder]
    if loose:
        raise ValueError(f"{loose[0]} is in no class: move it to a subfolder of its class, or list the clips in a CSV file.")
    labels = [path.relative_to(folder).parts[0] for path in paths]
    commas = [label for label in labels if "," in label]
    if commas:
        raise ValueError(f"The class {commas[0]!r} has a comma, which separates labels: rename {folder / commas[0]}.")
    return pd.DataFrame({"path": paths, "labels": labels})


def _table_of_csv(folder: Path, csv: Path) -> pd.DataFrame:
    """`path` and `labels` of each row of the file."""
    if not csv.is_file():
        raise FileNotFoundError(f"{csv} is not there: give a CSV file with the columns fname and labels.")
    table = data.read_table(csv, ["fname", "labels"])
    fnames = [Path(os.path.normpath(fname)) for fname in table["fname"]]
    for fname, given in zip(fnames, table["fname"]):
        if fname.is_absolute() or ".." in fname.parts:
            raise ValueError(f"{csv} lists {given!r}, which is outside {folder}: give names relative to that folder, of files in it.")
        if not (folder / fname).is_file():
            raise FileNotFoundError(f"{csv} lists {given!r}, which is not in {folder}: add the file or remove the row.")
    labels = [",".join(label.strip() for label in labels) for labels in data.split_labels(table["labels"])]
    return pd.DataFrame({"path": [folder / fname for fname in fnames], "labels": labels})


def _classes(table: pd.DataFrame, source: str | Path) -> list[str]:
    """The classes in alphabetical order."""
    clips = data.split_labels(table["labels"]).explode().value_counts().sort_index()
    for name in RESERVED:
        if name in clips:
            raise ValueError(f"{source}: a class cannot be called {name!r}: give it another name.")
    if len(clips) < 2:
        raise ValueError(f"{source} has {len(clips)} class, and a model tells at least two apart: add a class.")
    if clips.min() < MIN_CLIPS_PER_CLASS:
        raise ValueError(f"{source}: the class {clips.idxmin()!r} has {clips.min()} of at least {MIN_CLIPS_PER_CLASS} clips: add some, or remove it.")
    return list(clips.index)


def _plain_name(row: tuple, number: int, digits: int) -> str:
    name = f"{row.labels.split(',')[0]}-{number:0{digits}}-{row.path.stem}"
    return re.sub(r"[^\w-]+", "_", name) + row.path.suffix


def _link(path: Path, link: Path) -> None:
    try:
        link.symlink_to(path.resolve())
    except OSError:  # not every file system has links, and Windows does not let everyone make them
        shutil.copyfile(path, link)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.own", description="Make a data set of your own sounds.")
    parser.add_argument("folder", help="where the sounds are, in one subfolder a class if there is no CSV file")
    parser.add_argument("target", help="the folder to make")
    parser.add_argument("--csv", help="a file with the columns fname, relative to FOLDER, and labels, comma-separated")
    options = parser.parse_args(arguments)
    try:
        target = make_data_set(options.folder, options.target, options.csv)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    tables = {"train_curated": "train_curated.csv", "test": "test_labels.csv"}
    labels = {name: data.split_labels(data.read_table(target / file, ["fname", "labels"])["labels"]) for name, file in tables.items()}
    clips = pd.DataFrame({name: part.explode().value_counts() for name, part in labels.items()})
    print(clips.fillna(0).astype(int).sort_index().to_string())
    print(f"\nNow type: FAT_DATA={shlex.quote(str(target))} python -m utils.run")


if __name__ == "__main__":
    main()
