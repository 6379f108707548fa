"""Find clips that share sound, and keep them on one side of every split: python -m tests.shared_sounds DIR TARGET

Makes TARGET, the dataset in DIR (in Kaggle's layout) with a column `group`: clips whose normalized cross-correlation
exceeds 0.3 at some lag, as that of copies, overlapping excerpts and mixtures does. Compares the first 8 s at 4 kHz of
each curated clip with all others, so the time grows with the square of their number: minutes for a thousand.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from utils import audio
from utils.config import MelConfig
from utils.data import Competition
from utils.workspace import errors_in_one_sentence

SAMPLE_RATE, SECONDS = 4000, 8
LEAST = 0.3  # unrelated clips of the README's data rarely reach 0.2
BATCH = 16  # clips compared at once


def shared(table: pd.DataFrame, n_first: int) -> np.ndarray:
    """Return the group of each clip, a number, given the first `n_first` clips' correlations with all clips."""
    settings = replace(MelConfig(), sample_rate=SAMPLE_RATE, fmax=SAMPLE_RATE / 2)
    size = 2 * SECONDS * SAMPLE_RATE  # twice a clip, so that its ends do not meet
    spectra = []
    for path in tqdm(table["path"], "spectra", unit="clip"):
        samples = audio.load_clip(path, settings)
        samples = (samples - samples.mean())[: size // 2]
        spectra.append(scipy.fft.rfft(samples / max(np.linalg.norm(samples), 1e-9), size).astype(np.complex64))
    spectra, pairs = np.stack(spectra), []
    for row in tqdm(range(n_first), "correlations", unit="clip"):
        for start in range(row + 1, len(table), BATCH):
            correlations = scipy.fft.irfft(spectra[row].conj() * spectra[start : start + BATCH], size)
            alike = np.flatnonzero(np.abs(correlations).max(axis=1) > LEAST)
            pairs += [(row, start + number) for number in alike]
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), (len(table), len(table)))
    return connected_components(graph, directed=False)[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.shared_sounds", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to make")
    options = parser.parse_args()
    if not (options.data / "train_curated.csv").is_file():
        parser.error(f"{options.data} has no train_curated.csv: give a folder in Kaggle's layout")
    with errors_in_one_sentence(parser):
        competition = Competition(options.data)
        parts = {"train_curated.csv": competition.curated, "train_noisy.csv": competition.noisy}
        options.target.mkdir()
        groups = shared(pd.concat(parts.values(), ignore_index=True), len(competition.curated))
        for name, table in parts.items():
            if len(table):
                own, groups = groups[: len(table)], groups[len(table) :]
                table.drop(columns="path").assign(group=own).to_csv(options.target / name, index=False)
                print(f"{name}: {len(table)} clips in {len(np.unique(own))} groups, at most {np.bincount(own).max()}")
        for path in options.data.resolve().iterdir():
            if path.name not in parts:
                (options.target / path.name).symlink_to(path)


if __name__ == "__main__":
    main()
