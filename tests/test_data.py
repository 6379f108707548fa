import shutil

import pandas as pd
import pytest

from utils import config, data, dataset, mini
from utils.data import Competition


@pytest.fixture
def kaggle(competition, tmp_path):
    """A small copy of the mini set, to corrupt."""
    folder = tmp_path / "kaggle"
    for name, table in [
        ("train_curated", competition.curated),
        ("train_noisy", competition.noisy),
        ("test", competition.test),
    ]:
        (folder / name).mkdir(parents=True)
        for path in table["path"][:6]:
            shutil.copy(path, folder / name)
    for name in ("train_curated.csv", "train_noisy.csv", "sample_submission.csv"):
        pd.read_csv(competition.folder / name).iloc[:6].to_csv(folder / name, index=False)
    return folder


@pytest.fixture
def zenodo(kaggle, tmp_path):
    """The same clips in the layout of the public release."""
    folder = tmp_path / "zenodo"
    meta = folder / "FSDKaggle2019.meta"
    meta.mkdir(parents=True)
    for name in ("train_curated", "train_noisy", "test"):
        shutil.copytree(kaggle / name, folder / f"FSDKaggle2019.audio_{name}")
    for name in ("train_curated", "train_noisy"):
        shutil.copy(kaggle / f"{name}.csv", meta / f"{name}_post_competition.csv")
    test = pd.read_csv(kaggle / "sample_submission.csv")[["fname"]]
    test.assign(labels="Knock", usage="Public", freesound_id=1, license="CC0").to_csv(
        meta / "test_post_competition.csv", index=False
    )
    pd.DataFrame({"label": list(mini.RECIPES)}).to_csv(meta / "vocabulary.csv", header=False)
    return folder


def test_both_layouts_are_read_the_same(kaggle, zenodo):
    a, b = Competition(kaggle), Competition(zenodo)
    assert a.classes == b.classes == sorted(mini.RECIPES)
    for name in ("curated", "noisy", "test"):
        x, y = getattr(a, name), getattr(b, name)
        assert len(x) == 6
        assert list(x["fname"]) == list(y["fname"])
    assert list(a.curated["labels"]) == list(b.curated["labels"])
    assert "labels" not in a.test
    assert set(b.test["usage"]) == {"Public"}


def test_the_vocabulary_may_have_a_header_and_other_columns(zenodo):
    table = pd.DataFrame({"id": range(12), "label": list(mini.RECIPES)[::-1], "mid": [f"/m/{i}" for i in range(12)]})
    table.to_csv(zenodo / "FSDKaggle2019.meta/vocabulary.csv", index=False)
    assert Competition(zenodo).classes == sorted(mini.RECIPES)


def test_the_labels_of_the_test_clips_are_read_in_the_order_of_the_sample(kaggle):
    fnames = list(Competition(kaggle).test["fname"])
    labels = pd.DataFrame({"fname": fnames[::-1], "labels": [*mini.RECIPES][:6]})
    labels.to_csv(kaggle / "test_labels.csv", index=False)
    test = Competition(kaggle).test
    assert list(test["fname"]) == fnames
    assert list(test["labels"]) == [*mini.RECIPES][:6][::-1]
    assert all(path.endswith(fname) for path, fname in zip(test["path"], fnames))
    labels[1:].to_csv(kaggle / "test_labels.csv", index=False)
    with pytest.raises(ValueError, match=r"test_labels\.csv lists other clips than sample_submission\.csv"):
        Competition(kaggle)


def test_the_noisy_set_may_be_missing(kaggle):
    (kaggle / "train_noisy.csv").unlink()
    shutil.rmtree(kaggle / "train_noisy")
    assert len(Competition(kaggle).noisy) == 0


def test_the_audio_of_the_noisy_set_may_be_missing(kaggle, zenodo, capsys):
    shutil.rmtree(kaggle / "train_noisy")
    shutil.rmtree(zenodo / "FSDKaggle2019.audio_train_noisy")
    (kaggle / "train_noisy").mkdir()
    for folder in (kaggle, zenodo):
        noisy = Competition(folder).noisy
        assert len(noisy) == 0
        assert {"fname", "labels", "path"} <= set(noisy)
        assert "train_noisy is empty or missing: continuing without the noisy set" in capsys.readouterr().out


CORRUPTED = {
    "neither layout": (
        lambda d: (d / "train_curated.csv").unlink(),
        r"neither train_curated\.csv .* nor FSDKaggle2019\.meta",
    ),
    "no sample": (lambda d: (d / "sample_submission.csv").unlink(), r"sample_submission\.csv does not exist"),
    "absent clip": (
        lambda d: next((d / "train_curated").iterdir()).unlink(),
        r"train_curated\.csv lists [0-9a-f]{8}\.wav not found",
    ),
    "absent test clip": (
        lambda d: next((d / "test").iterdir()).unlink(),
        r"sample_submission\.csv lists [0-9a-f]{8}\.wav not found",
    ),
    "absent audio": (
        lambda d: shutil.rmtree(d / "test"),
        r"test does not exist, but sample_submission\.csv lists its clips",
    ),
}


@pytest.mark.parametrize("what", CORRUPTED)
def test_corrupted_data_is_reported_in_one_sentence(kaggle, what):
    corrupt, sentence = CORRUPTED[what]
    corrupt(kaggle)
    with pytest.raises((FileNotFoundError, ValueError), match=sentence) as caught:
        Competition(kaggle)
    assert "\n" not in str(caught.value)


def test_multi_hot_first_label_and_label_pairs():
    table = pd.DataFrame({"fname": ["a", "b", "c"], "labels": ["Run,Bark", "Tap", "Bark"]}, index=[7, 8, 9])
    classes = ["Bark", "Run", "Tap"]
    together = pd.DataFrame({"labels": ["Tap,Run", "Run,Bark", "Bark,Run", "Tap"]})
    assert list(data.label_pairs(together).items()) == [("Bark + Run", 2), ("Run + Tap", 1)]
    with pytest.raises(ValueError, match="'Tap' is not one of the 2 classes"):
        data.multi_hot(table, classes[:2])


def test_label_corrections_are_applied_and_clips_without_a_valid_label_dropped():
    fnames = ["f76181c4.wav", "1d44b0bd.wav", "7752cc8a.wav", "good.wav"]  # the third should have two labels
    table = pd.DataFrame({"fname": fnames, "labels": "Tap"})
    corrected = data.correct_labels(table, ["Bass_drum", "Tap"])
    assert corrected.to_numpy().tolist() == [["f76181c4.wav", "Bass_drum"], ["good.wav", "Tap"]]
    assert list(data.correct_labels(table, ["Knock", "Tap"])["fname"]) == ["good.wav"]  # other data, without Bass_drum
    assert list(data.correct_labels(table, ["Chink_and_clink", "Tap"])["fname"]) == ["good.wav"]


def test_training_clips_have_their_labels_corrected(competition, cache, monkeypatch, capsys):
    table = competition.curated.head(12)
    dropped, changed, *_ = table["fname"]
    monkeypatch.setattr(data, "LABEL_CORRECTIONS", {dropped: None, changed: competition.classes[-1]})
    clips = dataset.load_labeled(cache, table, competition.classes, config.QUICK, "cpu")
    assert list(clips.table["fname"]) == list(table["fname"][1:])
    assert clips.targets[0].tolist() == [0.0] * 11 + [1.0]
    assert "2 clips have a label correction" in capsys.readouterr().out


def test_the_mini_set_is_reproducible_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "CLIPS", {"train_curated": 2, "train_noisy": 1, "test": 1})
    one, two = mini.make_mini_set(tmp_path / "one"), mini.make_mini_set(tmp_path / "two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 12 * 4 + 4
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)
