"""Make a dataset in Kaggle's layout from your own sounds: python -m utils.own FOLDER TARGET [--csv FILE]"""

import argparse
import hashlib
import io
import os
import re
import shutil
import sys
import unicodedata
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from . import audio, data, files, parts, splits
from .workspace import errors_in_one_sentence, quoted

MIN_CLIPS_PER_CLASS = 3  # one for each of the training, validation and test sets
MIN_FOLDS = 3  # for the same reason, if the clips come in folds
LONGEST = 30  # s, as in the competition; of a longer sound, much may be something else than its label
MARKER = ".made-by-utils-own"  # empty file in a dataset that was made here, which may be replaced


def make_dataset(
    folder: str | Path,
    target: str | Path,
    csv: str | Path | None = None,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Make `target`, a dataset in Kaggle's layout to use as FAT_DATA, from the sounds in `folder`.

    The classes are the subfolders of `folder`; or `csv` lists the clips, with the columns `fname` (relative to
    `folder`) and `labels` (comma-separated). With `start` and `end`, in seconds, as `python -m utils.predict
    --detections` writes them, a clip is that part of a recording, written as WAV, with the labels of all rows of that
    part; if they are empty, it is from the beginning or to the end. Parts of a recording are a group, and so are those
    of recordings with a group in common.

    A random fifth, stratified by class, becomes the test set, whose labels are in
    `target`/test_labels.csv. Copies of a file stay together (not a sound in two formats), and so do clips of one
    `group` or `freesound_id`, if `csv` has such a column; with a column `fold`, the test set is the first fold. Other
    columns are kept in both tables. Sounds are linked where the system allows it, else copied, as
    CLASS-NUMBER-NAME-HASH, so that another sound never has the same name. With `replace`, a `target` made here before
    is overwritten.

    Raises FileExistsError if anything else is there; FileNotFoundError if a sound does not exist; ValueError if a name
    is listed twice, a file lies outside the folder or in no class, a part has no valid times or cannot be read, copies
    differ in labels, a name is not UTF-8, a class has an invalid name or no training clip, or there are too few
    classes, clips per class, groups or folds.
    """
    folder, target = Path(folder), Path(os.path.abspath(target))
    if os.path.lexists(target) and not (replace and (target / MARKER).is_file()):
        remedy = "remove it, choose another name, or --replace it if this version of the command made it"
        raise FileExistsError(f"{target} already exists: {remedy}.")
    if csv is None and target.resolve().is_relative_to(folder.resolve()):  # its sounds would be found in the next call
        raise ValueError(f"{target} is in {folder}, the folder of the sounds: choose a target outside.")
    source = folder if csv is None else Path(csv)
    _refuse_inside(target, folder, source)
    table = _table_of_folders(folder) if csv is None else _table_of_csv(folder, source)
    _refuse_inside(target, *table["path"])
    content = _content_hashes(table, source)
    if "start" in table:
        table, seconds = parts.group(table, content), parts.durations(table, source)
    else:
        seconds = audio.durations(table)
    if long := int((seconds > LONGEST).sum()):
        hears = "and training hears a random 2 s of each at a time"
        print(f"{source}: {long} sounds are longer than {LONGEST} s, {hears}: cut out what their labels are about.")
    classes = _classes(table, source)
    digits = len(str(len(table)))
    numbers = (f"{number:0{digits}}" for number in range(1, len(table) + 1))
    table["fname"] = list(map(_plain_name, table.itertuples(), numbers, content.str[:8]))
    if "fold" in table and table["fold"].nunique() < MIN_FOLDS:
        raise ValueError(f"{source}: give {MIN_FOLDS} folds or more, or remove the column fold.")
    hashed = table.assign(**{splits.CONTENT: content})
    try:
        curated, test = (hashed.iloc[rows] for rows in splits.split(hashed, seed))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    with redirect_stdout(io.StringIO()):  # training will print it again
        try:
            splits.split(curated, seed)
        except ValueError as error:
            raise ValueError(f"{source}: of the clips left for training, {error}") from error
    untrained = set(classes) - set(data.split_labels(curated["labels"]).explode())
    if untrained:
        alone = f"all clips of the class {min(untrained)!r} are test clips"
        raise ValueError(f"{source}: {alone}: add some in other groups or folds.")
    columns = ["fname", "labels", *table.columns.drop(["fname", "labels", "path"])]
    with files.atomic_folder(target, replace) as unfinished:
        for name, clips in [("train_curated", curated), ("test", test)]:
            (unfinished / name).mkdir(parents=True)
            for row in tqdm(clips.itertuples(), name, len(clips), unit="clip", file=sys.stdout, delay=1):
                (parts.write if parts.is_part(row) else _link)(row, unfinished / name / row.fname)
        curated[columns].to_csv(unfinished / "train_curated.csv", index=False)
        test[columns].to_csv(unfinished / data.TEST_LABELS, index=False)
        sample = pd.DataFrame(0, index=pd.Index(test["fname"]), columns=classes)
        sample.to_csv(unfinished / "sample_submission.csv")
        (unfinished / MARKER).touch()
    return target


def _refuse_inside(target: Path, *paths: Path) -> None:
    """Raise ValueError if one of `paths` lies in `target`: it would be removed with the earlier dataset."""
    target = target.resolve()
    for path in paths:
        if path.resolve().is_relative_to(target):
            raise ValueError(f"{path} is in {target}, which would be replaced: move it out of there.")


def _content_hashes(table: pd.DataFrame, source: Path) -> pd.Series:
    """Return a hash per file, equal for copies. Raises ValueError if they, or the same parts, differ in labels."""
    hashes = {path: _content_hash(path) for path in set(table["path"])}
    content = table["path"].map(hashes)
    same = content.str.cat([table[name].astype(str) for name in parts.COLUMNS if name in table], sep=" ")
    for _, copies in table[same.duplicated(keep=False)].groupby(same):
        labels = copies["labels"].str.split(",").map(sorted).map(tuple)
        if labels.nunique() > 1:
            both = " and ".join(map(str, copies[~labels.duplicated()]["path"][:2]))
            raise ValueError(f"{source}: {both} are the same sound: keep one of them, with all its labels.")
    if (count := int(same.duplicated().sum())) and "fold" not in table:
        print(f"{source}: copies of another sound: {count}. They stay with it in every split.")
    return content


def _content_hash(path: Path) -> str:
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: replace or remove it.")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table_of_folders(folder: Path) -> pd.DataFrame:
    """Return `path` and `labels` of each sound: its label is the top-level subfolder it is in."""
    paths = audio.find_sounds(folder)
    loose = [path for path in paths if path.parent == folder]
    if loose:
        remedy = "move it to a subfolder of its class, or list the clips in a CSV file"
        raise ValueError(f"{loose[0]} is in no class: {remedy}.")
    names = [path.relative_to(folder).parts[0] for path in paths]
    subfolders = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    if silent := sorted(subfolders - set(names)):
        print(f"{folder}: folders without sounds are not used as classes: {', '.join(silent)}")
    commas = [name for name in names if "," in name]
    if commas:
        raise ValueError(f"The class {commas[0]!r} has a comma, which separates labels: rename {folder / commas[0]}.")
    return pd.DataFrame({"path": paths, "labels": [unicodedata.normalize("NFC", name) for name in names]})


def _table_of_csv(folder: Path, csv: Path) -> pd.DataFrame:
    """Read the rows of the file, and add `path`."""
    if not csv.is_file():
        raise FileNotFoundError(f"{csv} does not exist: give a CSV file with the columns fname and labels.")
    table = data.read_table(csv, ["fname", "labels"], unique=["fname", *parts.COLUMNS, "labels"])
    known = (*parts.COLUMNS, *splits.GROUPS, "fold")
    if wrong := next((name for name in table if name not in known and name.lower() in known), None):
        raise ValueError(f"{csv} has a column {wrong!r}: write it in small letters.")
    table["labels"] = table["labels"].str.normalize("NFC")  # as typed, or as some systems store names of folders
    if any(name in table for name in parts.COLUMNS):
        table = parts.merge(table, csv)
    fnames = [Path(os.path.normpath(fname)) for fname in table["fname"]]
    for fname, given, labels in zip(fnames, table["fname"], table["labels"]):
        if "" in labels.split(","):
            raise ValueError(f"{csv}: {given} has an empty label: add the label or remove the row.")
        if fname.anchor or ".." in fname.parts:
            remedy = "give names relative to that folder, of files in it"
            raise ValueError(f"{csv} lists {given!r}, which is not relative to {folder}: {remedy}.")
        if not os.path.isfile(folder / fname):  # False, too, for a name that is too long
            files.refuse_undecodable((str(file.relative_to(folder)) for file in folder.rglob("*")), folder)
            raise FileNotFoundError(f"{csv} lists {given!r}, which is not in {folder}: add the file or remove the row.")
    return table.assign(path=[folder / fname for fname in fnames])


def _classes(table: pd.DataFrame, source: Path) -> list[str]:
    """Return the classes in alphabetical order."""
    clips = data.clips_per_class({"clips": table})["clips"]
    for name in clips.index:
        if name != name.strip() or re.search("[\0-\x1f]", name):
            raise ValueError(f"{source}: a class cannot be called {name!r}: give it another name.")
    if clips.min() < MIN_CLIPS_PER_CLASS:
        few = f"the class {clips.idxmin()!r} has {clips.min()} of at least {MIN_CLIPS_PER_CLASS} clips"
        raise ValueError(f"{source}: {few}: add some, or remove it.")
    return data.check_classes(list(clips.index), source)


def _plain_name(row: tuple, number: str, content: str) -> str:
    times = f"{row.start:g}_{row.end:g}" if parts.is_part(row) else ""
    words = (row.labels.split(",")[0], number, row.path.stem, times, content)  # file systems allow 255 bytes in all
    name = "-".join(word[:36].encode()[:90].decode(errors="ignore") for word in words if word)
    suffix = ".wav" if parts.is_part(row) else row.path.suffix
    return re.sub(r"[^\w-]+", "_", name) + re.sub(r"[^\w.]+", "_", suffix[:9])


def _link(row: tuple, link: Path) -> None:
    try:
        link.symlink_to(row.path.resolve())
    except OSError:  # not every file system has links, and Windows does not let everyone make them
        shutil.copyfile(row.path, link)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.own", description="Make a dataset from your own sounds.")
    parser.add_argument("folder", help="folder with the sounds, in one subfolder per class if there is no CSV file")
    parser.add_argument("target", help="folder to make")
    columns = "fname, relative to FOLDER; labels, comma-separated; if need be, start and end of a part (s), group, fold"
    parser.add_argument("--csv", help=f"table of all sounds: {columns}")
    parser.add_argument("--replace", action="store_true", help="overwrite TARGET if it was made by this command")
    options = parser.parse_args(arguments)
    with errors_in_one_sentence(parser):
        target = make_dataset(options.folder, options.target, options.csv, replace=options.replace)
    competition = data.Competition(target)
    counts = data.clips_per_class({"train_curated": competition.curated, "test": competition.test})
    print(counts.to_string())
    if untested := list(counts.index[counts["test"] == 0]):
        print(f"\nThe test score will say nothing about {', '.join(untested)}: no test clip has this label. Add more.")
    print(f"\nNext, run: python -m utils.run --data {quoted(options.target)} --preset quick 02 03 07 08")


if __name__ == "__main__":
    main()
