"""Parts of recordings: rows of a table with the columns `start` and `end`, in seconds."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io.wavfile

from . import audio, splits

COLUMNS = ("start", "end")


def merge(table: pd.DataFrame, csv: Path) -> pd.DataFrame:
    """Return `table` with numbers for `start` and `end`, groups, and one row per part with all its labels."""
    for name in COLUMNS:
        if name not in table:
            raise ValueError(f"{csv} has no column {name!r}: give start and end, in seconds, or neither.")
    given = table[["fname", *COLUMNS]].copy()
    for name, default in zip(COLUMNS, ("0", "inf")):
        table[name] = pd.to_numeric(table[name].replace("", default), errors="coerce")
    table["fname"] = table["fname"].map(os.path.normpath)
    valid = (table["start"] >= 0) & (table["end"] > table["start"])  # False for what is no number
    if not valid.all():
        row = " ".join(f"{name} {value!r}" for name, value in given[~valid].iloc[0].items())
        raise ValueError(f"{csv}: the row {row} has no times: give seconds, such as 62.5, and an end after the start.")
    labels = table.groupby(["fname", *COLUMNS])["labels"].transform(",".join).str.split(",")
    labels = [",".join(dict.fromkeys(each)) for each in labels]
    table = group(table, table["fname"])  # of all rows, before some are merged
    return table.assign(labels=labels).drop_duplicates(["fname", *COLUMNS], ignore_index=True)


def group(table: pd.DataFrame, content: pd.Series) -> pd.DataFrame:
    """Return `table` with a group for each recording and what shares its group: its parts have no hash in common."""
    name = splits.group_column(table) or "group"
    number = splits.groups(table.assign(**{splits.CONTENT: content}))
    given = table[name].where(table[name] != "") if name in table else table["fname"]
    first = given.groupby(number).transform("first")  # none if no row of the group has one
    return table.assign(**{name: first.fillna(table["fname"].groupby(number).transform("first"))})


def durations(table: pd.DataFrame, source: Path) -> np.ndarray:
    """Return the known durations of parts, in seconds; print how many there are, and how many overlap."""
    count = sum(map(is_part, table.itertuples()))
    print(f"{source}: {count} of {len(table)} clips are parts, by start and end, cut from their recordings.")
    ordered = table.sort_values(["fname", "start"])
    before = ordered.groupby("fname")["end"].transform(lambda end: end.cummax().shift())
    if overlaps := int((ordered["start"] < before).sum()):
        remedy = "narrow their times, or give each all labels heard in it"
        print(f"{source}: {overlaps} parts begin before an earlier one of the recording ends: {remedy}.")
    seconds = table["end"] - table["start"]
    to_end = np.flatnonzero(np.isinf(seconds))
    known = [audio.durations(table.iloc[[row]]) - table["start"].iloc[row] for row in to_end]
    return np.concatenate([seconds[np.isfinite(seconds)], *known])


def is_part(row: tuple) -> bool:
    return hasattr(row, "start") and (row.start > 0 or row.end < math.inf)


def write(row: tuple, file: Path) -> None:
    """Write a part of a recording as float32 WAV, the same bytes each time (soundfile would add the time of day)."""
    samples, sample_rate = audio.load_part(row.path, row.start, row.end)
    scipy.io.wavfile.write(file, sample_rate, samples)
