import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from utils import inference, submission


@pytest.fixture
def scores(competition):
    return np.random.default_rng(0).random((len(competition.test), len(competition.classes))).astype(np.float32)


def test_a_submission_matches_the_sample(competition, scores, tmp_path):
    run = SimpleNamespace(summary=lambda: {"run": "best"}, record={"fingerprint": "k"})
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[run])
    sample = pd.read_csv(competition.folder / "sample_submission.csv")
    written = pd.read_csv(file)
    assert list(written.columns) == list(sample.columns)
    assert list(written["fname"]) == list(sample["fname"])
    assert np.allclose(written.iloc[:, 1:], scores, atol=1e-6)
    made_by = {"data": competition.folder.name, "blend of": [{"run": "best", "fingerprint": "k"}]}
    assert json.loads((tmp_path / "submission.json").read_text()) == made_by


WORDS = ["loud", "True", "0,5", "50%", "0x1", "1_0", "2019-06-10", ""]
FAULTS = {
    "row missing": (lambda t: t.iloc[1:], "of its rows, .* is missing"),
    "rows shuffled": (lambda t: t.iloc[::-1], "rows are repeated or in another order"),
    "row twice": (lambda t: pd.concat([t, t.iloc[:1]]), "rows are repeated or in another order"),
    "column missing": (lambda t: t.drop(columns="Knock"), "of its columns, Knock is missing"),
    "columns swapped": (lambda t: t[["fname", *t.columns[:0:-1]]], "columns are repeated or in another order"),
    "column twice": (lambda t: pd.concat([t, t["Knock"]], axis=1), r"Knock\.1 is not expected"),
    "strange column": (lambda t: t.assign(Unicorn=0.0), "Unicorn is not expected"),
    "empty score": (lambda t: t.assign(Knock=np.nan), "96 scores are not finite"),
    "words for scores": (lambda t: t.assign(Knock=np.resize(WORDS, len(t))), "96 scores are not finite"),
    "truth values": (lambda t: t.assign(Knock=True), "96 scores are not finite"),
    "infinite scores": (lambda t: t.assign(Knock=np.resize([np.inf, -np.inf], len(t))), "96 scores are not finite"),
    "scores below zero": (lambda t: t.assign(Knock=-1e-300), "96 scores are not between 0 and 1"),
    "scores over one": (lambda t: t.assign(Knock=1 + 1e-9), "96 scores are not between 0 and 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_catches(competition, scores, tmp_path, fault):
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[])
    change, sentence = FAULTS[fault]
    change(pd.read_csv(file)).to_csv(file, index=False)
    with pytest.raises(ValueError, match=sentence):
        submission.check(file, competition)


def test_an_invalid_submission_is_not_written(competition, scores, tmp_path):
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[])
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"submission\.csv is not a valid submission: .* not finite"):
        submission.write(file, np.full_like(scores, np.nan), competition, runs=[])
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["submission.csv", "submission.json"]


def test_on_kaggle_a_copy_goes_where_the_competition_looks(competition, scores, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "KAGGLE_WORKING", tmp_path / "working")
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[])
    assert not (tmp_path / "working").exists()  # as elsewhere than on Kaggle
    (tmp_path / "working").mkdir()
    submission.write(file, scores, competition, runs=[])
    assert (tmp_path / "working/submission.csv").read_bytes() == file.read_bytes()


def test_a_submission_is_scored_where_the_test_labels_are_known(tmp_path):
    test = pd.DataFrame({"fname": ["a", "b", "c"], "labels": ["x", "y", "y"], "usage": ["Public", "Private", "Public"]})
    competition = SimpleNamespace(classes=["x", "y"], test=test, folder=tmp_path)
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    file = submission.write(tmp_path / "submission.csv", scores, competition, runs=[])
    scores = submission.score(file, competition)
    assert scores[["clips", "LWLRAP"]].T.to_dict("list") == {"Private": [1, 0.5], "Public": [2, 0.75]}
    assert list(scores.loc["Private", ["low", "high"]]) == [0.5, 0.5]  # of a single clip
    competition.test = test[["fname", "labels"]]
    assert submission.score(file, competition)[["clips", "LWLRAP"]].T.to_dict("list") == {"all": [3, 2 / 3]}
    competition.test = test[["fname"]]
    with pytest.raises(ValueError, match="has no test labels"):
        submission.score(file, competition)


def test_baselines_and_pretrained_networks_are_not_submitted():
    kinds = {"baseline": (False, False), "transfer": (True, True), "better": (True, False), "worse": (True, False)}
    kinds |= {"best_wide-full": (True, False), "best-full": (True, False)}  # blends, whatever one of its models reaches
    runs = [SimpleNamespace(name=name, has_weights=w, pretrained=p) for name, (w, p) in kinds.items()]
    assert [run.name for run in submission.allowed(runs)] == ["best_wide-full", "best-full", "better", "worse"]
    with pytest.raises(ValueError, match=r"No run has a network without pretrained weights.*run 03_cnn"):
        submission.allowed(runs[:2])


def test_the_blend_is_evaluated_on_the_clips_that_all_runs_share():
    def run(name, **scores):
        rows = [{"fname": fname, "labels": "ab"[int(fname[1]) % 2]} | dict(zip("ab", s)) for fname, s in scores.items()]
        return SimpleNamespace(name=name, classes=["a", "b"], validation=pd.DataFrame(rows))

    one = run("one", c0=(0.9, 0.2), c1=(0.6, 0.5), c2=(0.1, 0.9))
    other = run("other", c3=(0.9, 0.1), c1=(0.1, 0.9), c0=(0.4, 0.5))  # in another order
    table = submission.blend_table([one, other])
    assert table["LWLRAP"].to_dict() == {"one": 0.75, "other": 0.75, "their blend": 1}
    assert submission.blend_table([one, run("third", c5=(0.5, 0.4))]).empty
    assert list(submission.blend_table([one]).index) == ["one"]


def test_blend_is_the_geometric_mean():
    one, other = np.full((2, 3), 0.2), np.full((2, 3), 0.8)
    assert np.allclose(inference.blend([one, other]), 0.4)
    low = np.float32([[1e-20, 1e-25]])
    assert np.allclose(inference.blend([low, low]) / low, 1)  # no ties, which would share the worst rank
    assert inference.blend([one]) is one
    with pytest.raises(ValueError, match="choose at least one run"):
        inference.blend([])
