import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from utils import metrics, submission


@pytest.fixture
def scores(competition):
    return np.random.default_rng(0).random((len(competition.test), len(competition.classes))).astype(np.float32)


def test_a_submission_matches_the_sample(competition, scores, tmp_path):
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[])
    sample = pd.read_csv(competition.folder / "sample_submission.csv")
    written = pd.read_csv(file)
    assert list(written.columns) == list(sample.columns)
    assert list(written["fname"]) == list(sample["fname"])
    assert np.allclose(written.iloc[:, 1:], scores, atol=1e-6)
    assert json.loads((tmp_path / "submission.json").read_text())["data"] == competition.folder.name


FAULTS = {
    "row missing": (lambda t: t.iloc[1:], "of its rows, .* is missing"),
    "rows shuffled": (lambda t: t.iloc[::-1], "rows are repeated or in another order"),
    "row twice": (lambda t: pd.concat([t, t.iloc[:1]]), "rows are repeated or in another order"),
    "column missing": (lambda t: t.drop(columns="Knock"), "of its columns, Knock is missing"),
    "columns swapped": (lambda t: t[["fname", *t.columns[:0:-1]]], "columns are repeated or in another order"),
    "strange column": (lambda t: t.assign(Unicorn=0.0), "Unicorn is not asked for"),
    "empty score": (lambda t: t.assign(Knock=np.nan), "96 scores are not finite"),
    "word for a score": (lambda t: t.assign(Knock="loud"), "96 scores are not finite"),
    "score over one": (lambda t: t.assign(Knock=1.5), "96 scores are not within 0 and 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_catches(competition, scores, tmp_path, fault):
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[])
    change, sentence = FAULTS[fault]
    change(pd.read_csv(file)).to_csv(file, index=False)
    with pytest.raises(ValueError, match=sentence):
        submission.check(file, competition)


def test_a_bad_submission_leaves_what_stood(competition, scores, tmp_path):
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[])
    before = file.read_bytes()
    with pytest.raises(ValueError, match="not finite"):
        submission.write(file, np.full_like(scores, np.nan), competition, runs=[])
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["submission.csv", "submission.json"]


def test_on_kaggle_a_copy_goes_where_the_competition_looks(competition, scores, tmp_path, monkeypatch):
    (tmp_path / "working").mkdir()
    monkeypatch.setattr(submission, "KAGGLE_WORKING", tmp_path / "working")
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[])
    assert (tmp_path / "working/submission.csv").read_bytes() == file.read_bytes()


def test_the_default_run_is_the_best_that_the_competition_allows():
    allowed = {"baseline": (False, False), "transfer": (True, True), "best": (True, False), "worse": (True, False)}
    runs = [SimpleNamespace(name=name, has_weights=w, pretrained=p) for name, (w, p) in allowed.items()]
    assert submission.default_run(runs).name == "best"
    with pytest.raises(ValueError, match=r"No run is of a network without pretrained weights.*run 03_cnn"):
        submission.default_run(runs[:2])


def test_blend_is_the_geometric_mean():
    one, other = np.full((2, 3), 0.2), np.full((2, 3), 0.8)
    assert np.allclose(metrics.blend([one, other]), 0.4)
    assert metrics.blend([one]) is one
    with pytest.raises(ValueError, match="choose at least one run"):
        metrics.blend([])
