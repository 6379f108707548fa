"""Write and check the submission, and record what made it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from . import files
from .config import KAGGLE_WORKING
from .data import TEST_LABELS, Competition, first_label, multi_hot
from .inference import blend
from .metrics import lwlrap_by, summary
from .run_folder import Run
from .runs import common_clips, preferred


def allowed(runs: Sequence[Run]) -> list[Run]:
    """Return those `preferred` of `runs` that have no pretrained weights, which the competition forbade.

    Raises ValueError if there are none.
    """
    found = [run for run in preferred(runs) if not run.pretrained]
    if not found:
        raise ValueError("No run has a network without pretrained weights, as the competition requires: run 03_cnn.")
    return found


def blend_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return LWLRAP and top-5 of each run and of a blend of several, on the validation clips they share, if any."""
    clips = sorted(common_clips(runs) or ())
    tables = {run.name: run.validation.set_index("fname").loc[clips] for run in runs}
    classes, labels = runs[0].classes, tables[runs[0].name]
    scores = {name: table[classes].to_numpy() for name, table in tables.items()}
    if len(runs) > 1:
        scores["their blend"] = blend(list(scores.values()))
    targets, first = multi_hot(labels, classes), first_label(labels, classes)
    rows = {name: summary(targets, first, some) for name, some in scores.items() if clips}
    return pd.DataFrame.from_dict(rows, orient="index")


def fill_unreadable(scores: np.ndarray, table: pd.DataFrame, competition: Competition) -> np.ndarray:
    """Expand `scores` of the clips in `table`, (clips, classes), to all test clips in order, (test clips, classes).

    A clip that `table` lacks because it cannot be read still needs a row: it gets each class's share of the curated
    clips, and its name is printed.
    """
    rows = pd.Index(table["fname"]).get_indexer(competition.test["fname"])
    prior = multi_hot(competition.curated, competition.classes).mean(axis=0)
    for fname in competition.test["fname"][rows < 0]:
        print(f"WARNING: {fname} cannot be read; its scores are each class's share of the curated clips")
    return np.where(rows[:, None] < 0, prior, scores[rows])


def write(file: str | Path, scores: np.ndarray, competition: Competition, runs: Sequence[Run]) -> Path:
    """Write `scores`, (test clips, classes), as a submission, check it, and record its runs in a JSON file beside it.

    The file is put in place only after the check, or not at all. On Kaggle a copy goes to
    /kaggle/working/submission.csv, where the competition looks for it. Raises ValueError as `check` does, with
    existing files unchanged, and OSError if a file cannot be written; that file is then unchanged.
    """
    file = Path(file)
    table = pd.DataFrame(scores, columns=competition.classes)
    table.insert(0, "fname", competition.test["fname"].to_numpy())
    made_by = [run.summary() | run.record for run in runs]
    with files.atomic_file(file.with_suffix(".json")) as record, files.atomic_file(file) as unfinished:
        table.to_csv(unfinished, index=False)
        check(unfinished, competition, name=file)
        record.write_text(json.dumps({"data": competition.folder.name, "blend of": made_by}, indent=1))
    expected = KAGGLE_WORKING / "submission.csv"
    if KAGGLE_WORKING.is_dir():
        with files.atomic_file(expected) as unfinished:
            shutil.copy(file, unfinished)
    return file


def score(file: str | Path, competition: Competition) -> pd.DataFrame:
    """Return the LWLRAP of a submission on the test clips; with Zenodo's data, on the Public and Private ones.

    The columns are `clips`, `LWLRAP` and its interval, `low` and `high`. Raises ValueError if the submission is not
    valid, or if the data has no labels of the test clips.
    """
    if "labels" not in competition.test:
        raise ValueError(f"{competition.folder.name} has no test labels: add {TEST_LABELS}, or use Zenodo's release.")
    scores = check(file, competition)[competition.classes].to_numpy()
    targets = multi_hot(competition.test, competition.classes)
    group = competition.test.get("usage", pd.Series("all", competition.test.index))
    return lwlrap_by(group, targets, scores)


def check(file: str | Path, competition: Competition, name: str | Path | None = None) -> pd.DataFrame:
    """Return the submission in `file` if it is what the competition expects.

    That is: rows and columns named and ordered as in sample_submission, and finite scores between 0 and 1. Raises
    ValueError with everything that is wrong with it, called `name` if that is given, and FileNotFoundError if there is
    no such file.
    """
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    wrong = []
    columns = ["fname", *competition.classes]
    if list(table.columns) != columns:
        wrong.append(_difference("columns", list(table.columns), columns))
    if "fname" in table and list(table["fname"]) != list(competition.test["fname"]):
        wrong.append(_difference("rows", list(table["fname"]), list(competition.test["fname"])))
    scores = table.drop(columns="fname", errors="ignore").apply(pd.to_numeric, errors="coerce")
    table[scores.columns] = scores
    scores = scores.to_numpy(dtype=float)
    faults = {"finite numbers": ~np.isfinite(scores), "between 0 and 1": (scores < 0) | (scores > 1)}
    wrong += [f"{bad.sum()} scores are not {what}" for what, bad in faults.items() if bad.any()]
    if wrong:
        raise ValueError(f"{name or file} is not a valid submission: " + "; ".join(wrong) + ".")
    return table


def _difference(what: str, given: list[str], expected: list[str]) -> str:
    there, known = set(given), set(expected)
    missing, unknown = [x for x in expected if x not in there], [x for x in given if x not in known]
    if missing:
        return f"of its {what}, {missing[0]} is missing ({len(missing)} in all)"
    if unknown:
        return f"of its {what}, {unknown[0]} is not expected ({len(unknown)} in all)"
    return f"its {what} are repeated or in another order than the test clips and classes"
