"""Properties that hold for any input; Hypothesis draws the same cases every time."""

import os
from collections import Counter
from dataclasses import asdict
from json import dumps
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from utils import data, mel, mel_cache, splits, submission
from utils.config import MelConfig
from utils.dataset import MelDataset
from utils.metrics import lwlrap, per_class_lwlrap, top_k_accuracy

# Hypothesis stores more than examples.
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(Path(os.environ["FAT_WORK"]) / "hypothesis")
settings.register_profile(
    "kit", max_examples=75, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kit")

SMALL = MelConfig(sample_rate=8000, n_fft=256, hop_length=64, n_mels=4, fmax=4000)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories="C", exclude_characters="/,"), min_size=1, max_size=6)
CLASSES = st.lists(NAMES.filter(lambda name: name != "fname"), min_size=1, max_size=5, unique=True)


@st.composite
def ranked(draw):
    """Targets with at least one label, and scores, often tied; also clips with no label or all, and a single class."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 6)))
    targets = draw(arrays(np.float32, shape, elements=st.sampled_from([0, 1]), fill=st.nothing()))
    targets[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = 1
    values = st.integers(-2, 2) | st.floats(-1e6, 1e6, width=32)
    return targets, draw(arrays(np.float64, shape, elements=values, fill=st.nothing()))


@given(ranked(), st.data())
def test_lwlrap_depends_on_score_ranks_not_on_clip_or_class_order(case, draws):
    targets, scores = case
    clips, classes = (draws.draw(st.permutations(range(n))) for n in targets.shape)
    n = targets.shape[1]
    levels = draws.draw(st.lists(st.floats(-1e300, 1e300), min_size=n, max_size=n, unique=True))
    mapped = np.sort(levels)[rankdata(scores, method="dense", axis=1).astype(int) - 1]
    assert lwlrap(targets, mapped) == lwlrap(targets, scores)
    shuffled = np.ix_(clips, classes)
    assert lwlrap(targets[shuffled], scores[shuffled]) == pytest.approx(lwlrap(targets, scores))
    assert per_class_lwlrap(targets[shuffled], scores[shuffled]) == pytest.approx(
        per_class_lwlrap(targets, scores)[list(classes)], nan_ok=True
    )


@given(ranked(), st.data())
def test_top_k_accuracy_grows_from_zero_to_one(case, draws):
    _, scores = case
    clips, classes = scores.shape
    first_label = draws.draw(arrays(np.int64, clips, elements=st.integers(0, classes - 1)))
    accuracies = [top_k_accuracy(first_label, scores, k) for k in range(classes + 1)]
    assert accuracies == sorted(accuracies)
    assert (accuracies[0], accuracies[-1]) == (0, 1)
    every_class = [top_k_accuracy(np.full(clips, i), scores, 1) for i in range(classes)]
    assert sum(every_class) <= 1 + 1e-9


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """More noise files than one worker task takes, from one sample up, and the frames of each alone."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    paths = [str(folder / f"{i}.wav") for i in range(mel_cache.CHUNK + 8)]
    for i, path in enumerate(paths):
        soundfile.write(path, rng.uniform(-0.5, 0.5, 1 + 40 * i), SMALL.sample_rate)
    return pd.DataFrame({"fname": [Path(path).name for path in paths], "path": paths}), [
        mel.clip_to_log_mel(path, SMALL) for path in paths
    ]


@given(st.data())
@settings(max_examples=50)
def test_a_cache_of_any_clips_in_any_order_gives_each_its_own_frames(sounds, tmp_path_factory, draws):
    table, alone = sounds
    order = draws.draw(st.permutations(range(len(table))))[: draws.draw(st.integers(1, len(table)))]
    folder = tmp_path_factory.getbasetemp() / "caches"
    cache = mel_cache.build(table.iloc[order], folder, "drawn", SMALL, n_jobs=1)
    assert list(cache.clips["fname"]) == [f"{i}.wav" for i in order]
    assert len(cache.frames) == sum(alone[i].shape[1] for i in order)
    for i in order:
        assert np.array_equal(cache[f"{i}.wav"], alone[i].astype(np.float16))


@st.composite
def flat(draw):
    """A Cache's clips, stored in any order, a table of some of them in any other order, and the classes."""
    names = draw(st.lists(NAMES | st.sampled_from(["NA", "007", "1e5", "True"]), min_size=1, max_size=5, unique=True))
    lengths = np.array([draw(st.integers(1, 9)) for _ in names])
    laid = np.array(draw(st.permutations(range(len(names)))))
    starts = np.empty_like(lengths)
    starts[laid] = np.cumsum(lengths[laid]) - lengths[laid]
    pad_values = [draw(st.floats(-100, -50, width=16)) for _ in names]
    columns = {"fname": names, "start": starts, "length": lengths, "pad_value": pad_values, "content_hash": names}
    clips = pd.DataFrame(columns)
    listed = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    classes = draw(CLASSES)
    return (
        clips,
        pd.DataFrame({"fname": listed, "labels": [",".join(draw(labels_of(classes))) for _ in listed]}),
        classes,
    )


def labels_of(classes):
    return st.lists(st.sampled_from(classes), min_size=1, max_size=4)


def opened(clips, folder):
    """Write a Cache of these clips as documented, with all values different, to tell where each is from."""
    frames = np.arange(clips["length"].sum() * SMALL.n_mels, dtype=np.float16).reshape(-1, SMALL.n_mels)
    np.save(folder / "frames.npy", frames)
    clips.to_csv(folder / "clips.csv", index=False)
    (folder / "settings.json").write_text(dumps(asdict(SMALL)))
    spectrograms = {clip.fname: frames[clip.start : clip.start + clip.length].T for clip in clips.itertuples()}
    return mel_cache.Cache(folder), spectrograms


@given(flat(), st.data())
def test_crops_are_slices_of_the_clip_with_its_pad_value_beyond_the_ends(tmp_path_factory, case, draws):
    clips, table, classes = case
    cache, spectrograms = opened(clips, tmp_path_factory.mktemp("flat"))
    rows = draws.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, max_size=5))
    offsets = [draws.draw(st.integers(-30, 30)) for _ in rows]
    n_frames = draws.draw(st.integers(1, 20))
    crops = MelDataset(cache, table, classes).crops(torch.tensor(rows), torch.tensor(offsets), n_frames)
    assert crops.shape == (len(rows), 1, SMALL.n_mels, n_frames)
    pad_values = dict(zip(clips["fname"], clips["pad_value"]))
    for crop, row, offset in zip(crops[:, 0].numpy(), rows, offsets):
        fname = table["fname"][row]
        assert np.array_equal(cache[fname], spectrograms[fname])
        surrounded = np.pad(spectrograms[fname], ((0, 0), (50, 50)), constant_values=pad_values[fname])
        assert np.array_equal(crop, surrounded[:, 50 + offset : 50 + offset + n_frames])


@given(flat(), st.data())
def test_a_subset_keeps_names_targets_and_frames_of_its_rows_together(tmp_path_factory, case, draws):
    clips, table, classes = case
    cache, spectrograms = opened(clips, tmp_path_factory.mktemp("flat"))
    whole = part = MelDataset(cache, table, classes)
    rows = np.arange(len(table))
    for _ in range(2):  # a subset of a subset too
        chosen = np.array(draws.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6)))
        rows, part = rows[chosen], part.subset(chosen)
    assert len(part) == len(rows)
    assert part.table[list(table)].equals(table.iloc[rows].reset_index(drop=True))
    assert torch.equal(part.targets, whole.targets[rows])
    for i, fname in enumerate(part.table["fname"]):
        length = spectrograms[fname].shape[1]
        assert part.lengths[i] == length
        assert np.array_equal(
            part.crops(torch.tensor([i]), torch.tensor([0]), length)[0, 0].numpy(), spectrograms[fname]
        )
    assert len(whole) == len(table)
    assert len(whole.starts) == len(table)


@st.composite
def submissions(draw):
    """What `check` needs of a competition, and scores for its test clips."""
    fnames = draw(st.lists(NAMES | st.sampled_from(["NA", "null"]), min_size=2, max_size=6, unique=True))
    classes = draw(CLASSES)
    competition = SimpleNamespace(classes=classes, test=pd.DataFrame({"fname": fnames}), folder=Path("drawn"))
    scores = draw(arrays(np.float32, (len(fnames), len(classes)), elements=st.floats(0, 1, width=32)))
    return competition, scores


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("submissions") / "submission.csv"


@given(submissions())
def test_a_submission_is_read_as_it_was_written(file, case):
    competition, scores = case
    table = submission.check(submission.write(file, scores, competition, runs=[]), competition)
    assert list(table["fname"]) == list(competition.test["fname"])
    assert np.array_equal(table[competition.classes].to_numpy(dtype=np.float32), scores)


@st.composite
def labeled(draw, least=1):
    """Classes, lists of them, and a table of these lists with a shuffled index, as after a selection."""
    classes = draw(CLASSES)
    lists = draw(st.lists(labels_of(classes), min_size=least, max_size=40))
    index = draw(st.permutations(range(len(lists))))
    return classes, lists, pd.DataFrame({"labels": [",".join(labels) for labels in lists]}, index=index)


@given(labeled())
def test_labels_come_back_from_the_table(case):
    classes, lists, table = case
    assert data.split_labels(table["labels"]).tolist() == lists
    targets = data.multi_hot(table, classes)
    assert targets.shape == (len(table), len(classes))
    assert targets.sum() == sum(len(set(labels)) for labels in lists)
    assert [{classes[i] for i in np.flatnonzero(row)} for row in targets] == [set(labels) for labels in lists]
    assert [classes[i] for i in data.first_label(table, classes)] == [labels[0] for labels in lists]


def strata_of(lists, n_folds):
    """What the folds stratify by: the set of labels if it is frequent enough, else the first label."""
    sets = [",".join(sorted(set(labels))) for labels in lists]
    frequent = {some for some, clips in Counter(sets).items() if clips >= n_folds}
    return [some if some in frequent else labels[0] for some, labels in zip(sets, lists)]


@given(labeled(), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_folds_hold_each_clip_once_and_every_stratum_in_equal_shares(case, n_folds, seed):
    _, lists, table = case
    if len(table) == 1:
        with pytest.raises(ValueError, match="1 clips of one group cannot be split"):
            splits.folds(table, n_folds, seed)
        return
    n_folds = min(n_folds, len(table))  # as many as there are clips
    fold = splits.folds(table, n_folds, seed)
    assert set(fold) == set(range(n_folds))
    assert np.ptp(np.bincount(fold)) <= 1
    strata = strata_of(lists, n_folds)
    for stratum in set(strata):
        shares = np.bincount(fold[[some == stratum for some in strata]], minlength=n_folds)
        assert np.ptp(shares) <= 1
    assert np.array_equal(splits.folds(table, n_folds, seed), fold)
    train_rows, validation_rows = splits.split(table, seed)
    assert sorted([*train_rows, *validation_rows]) == list(range(len(table)))
    assert np.array_equal(validation_rows, np.flatnonzero(splits.folds(table, 5, seed) == 0))


@given(labeled(), st.integers(2, 4), st.integers(0, 2**32 - 1), st.sampled_from(["group", "freesound_id"]), st.data())
def test_folds_keep_groups_whole(case, n_folds, seed, column, draws):
    _, _, table = case
    names = draws.draw(
        st.lists(st.sampled_from(["", None, "a", "b", "c", "d"]), min_size=len(table), max_size=len(table))
    )
    table = table.assign(**{column: names})
    groups = len({name for name in names if name}) + sum(not name for name in names)
    if groups < 2:
        with pytest.raises(ValueError, match="clips of one group cannot be split"):
            splits.folds(table, n_folds, seed)
        return
    n_folds = min(n_folds, groups)
    fold = splits.folds(table, n_folds, seed)
    assert set(fold) == set(range(n_folds))
    for name in {name for name in names if name}:
        assert len(set(fold[[some == name for some in names]])) == 1
