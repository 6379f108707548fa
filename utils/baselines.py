"""Baselines without networks: k-nearest neighbors and naive Bayes on 50 features per clip, fitted in seconds."""

import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import librosa
import numpy as np
import pandas as pd

from .config import MelConfig
from .dataset import MelDataset, check_sets
from .run_folder import Run, refuse_other_folder, save_run

# Source: H. Homburg et al., A benchmark dataset for audio classification and clustering, ISMIR 2005, classify music
# with these two, among others. Their features came from a search over signal operations; ours are the usual ones for
# speech and music, and k is our choice.
TITLES = {"knn": "k-NN", "naive_bayes": "Naive Bayes"}
N_MFCC = 20
MEASURES = [*(f"MFCC {i}" for i in range(N_MFCC)), "centroid", "bandwidth", "roll-off", "flatness", "level"]
FEATURES = [f"{measure}, {statistic}" for statistic in ("mean", "standard deviation") for measure in MEASURES]
N_NEIGHBORS = 10


def features(log_mel: np.ndarray, settings: MelConfig) -> np.ndarray:
    """Compute features of a whole clip, float64 (50,), finite, from its log-mel spectrogram (n_mels, frames) in dB.

    They are `FEATURES`: the mean and the standard deviation over time of the first 20 MFCCs, of the spectral centroid,
    bandwidth and 85% roll-off in mel bands, of the spectral flatness in dB, and of the level in dB.
    """
    log_mel = log_mel.astype(np.float64)
    power, bands = librosa.db_to_power(log_mel), np.arange(settings.n_mels)
    level = librosa.power_to_db(power.sum(axis=0), amin=settings.amin, top_db=None)
    over_time = np.vstack([
        librosa.feature.mfcc(S=log_mel, n_mfcc=N_MFCC),
        librosa.feature.spectral_centroid(S=power, freq=bands),
        librosa.feature.spectral_bandwidth(S=power, freq=bands),
        librosa.feature.spectral_rolloff(S=power, freq=bands),
        librosa.power_to_db(librosa.feature.spectral_flatness(S=power, power=1.0), top_db=None),
        level[None],
    ])  # fmt: skip
    return np.concatenate([over_time.mean(axis=1), over_time.std(axis=1)])


def feature_table(dataset: MelDataset) -> pd.DataFrame:
    """Compute `features` of each clip: a row per clip, a column for each of `FEATURES`."""
    rows = [features(dataset.clip(row).T.cpu().numpy(), dataset.mel) for row in range(len(dataset))]
    return pd.DataFrame(rows, columns=FEATURES)


def fit(name: str, train_set: MelDataset, validation_set: MelDataset, folder: str | Path) -> Run:
    """Fit "knn" or "naive_bayes" to `train_set`, score `validation_set`, and save the scores in `folder` as a Run.

    Clips have several labels, so each class has its own classifier. Classifiers are not saved: refitting takes seconds.
    Raises ValueError as `dataset.check_sets` does, and FileExistsError if `folder` holds anything but a run.
    """
    from sklearn.multiclass import OneVsRestClassifier  # takes seconds, and `predict` does not need it
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    class NaiveBayes(GaussianNB):
        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            absent, present = self.predict_joint_log_proba(x).T
            log_odds = present - absent  # a sigmoid would round many of them to 1, and ties take the worst rank
            score = (1 + log_odds / (1 + abs(log_odds))) / 2
            return np.stack([1 - score, score], axis=1)

    check_sets(train_set, validation_set, TITLES[name])
    refuse_other_folder(Path(folder))
    began = time.perf_counter()
    k = min(N_NEIGHBORS, len(train_set))  # there may be fewer clips
    classifier = KNeighborsClassifier(k, weights="distance") if name == "knn" else NaiveBayes()
    pipeline = make_pipeline(StandardScaler(), OneVsRestClassifier(classifier))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label .* is present in all", category=UserWarning)
        pipeline.fit(feature_table(train_set), train_set.targets.numpy().astype(int))
    scores = pipeline.predict_proba(feature_table(validation_set))
    history = pd.DataFrame(columns=["epoch"])
    record = {
        "title": TITLES[name],
        "classifier": str(pipeline),
        "pretrained": False,
        "seconds": round(time.perf_counter() - began, 1),
        "versions": {"python": platform.python_version(), "scikit-learn": version("scikit-learn")},
    }
    return save_run(Path(folder), None, record, history, train_set, validation_set, scores)
