import shutil

import numpy as np
import pandas as pd
import pytest

from utils import config, data, dataset, mel_cache, mini, splits
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
    for folder in (kaggle, zenodo):
        noisy = Competition(folder).noisy
        assert len(noisy) == 0
        assert {"fname", "labels", "path"} <= set(noisy)
        assert "train_noisy does not exist: continuing without the noisy set" in capsys.readouterr().out


def edit(file, change):
    change(pd.read_csv(file)).to_csv(file, index=False)


CORRUPTED = {
    "neither layout": (
        lambda d: (d / "train_curated.csv").unlink(),
        r"neither train_curated\.csv .* nor FSDKaggle2019\.meta",
    ),
    "no sample": (lambda d: (d / "sample_submission.csv").unlink(), r"sample_submission\.csv does not exist"),
    "no class": (
        lambda d: edit(d / "train_noisy.csv", lambda t: t.assign(labels="Knock,Unicorn")),
        r"train_noisy\.csv: [0-9a-f]{8}\.wav has the label 'Unicorn', which is not one of the 12 classes",
    ),
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


def test_an_unknown_label_is_reported_in_zenodos_layout_too(zenodo):
    file = zenodo / "FSDKaggle2019.meta/train_curated_post_competition.csv"
    edit(file, lambda t: t.assign(labels=["Knock,Unicorn", *t["labels"][1:]]))
    with pytest.raises(
        ValueError, match=r"train_curated_post_competition\.csv: [0-9a-f]{8}\.wav has the label 'Unicorn'"
    ):
        Competition(zenodo)


def test_multi_hot_first_label_and_label_pairs():
    table = pd.DataFrame({"fname": ["a", "b", "c"], "labels": ["Run,Bark", "Tap", "Bark"]}, index=[7, 8, 9])
    classes = ["Bark", "Run", "Tap"]
    assert data.multi_hot(table, classes).tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert data.first_label(table, classes).tolist() == [1, 2, 0]
    together = pd.DataFrame({"labels": ["Tap,Run", "Run,Bark", "Bark,Run", "Tap"]})
    assert list(data.label_pairs(together, classes).items()) == [("Bark + Run", 2), ("Run + Tap", 1)]
    with pytest.raises(ValueError, match="'Tap' is not one of the 2 classes"):
        data.multi_hot(table, classes[:2])


def test_split_uses_every_clip_once_and_stratifies_by_class(capsys):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"fname": range(1000), "labels": rng.choice(list("abcdefghij"), 1000)})
    train_rows, validation_rows = splits.split(table, seed=0)
    assert sorted([*train_rows, *validation_rows]) == list(range(1000))
    assert len(validation_rows) == 200
    share = table["labels"].iloc[validation_rows].value_counts() / table["labels"].value_counts()
    assert share.between(0.18, 0.22).all()
    assert splits.split(table, seed=0)[1].tolist() == validation_rows.tolist()
    assert splits.split(table, seed=1)[1].tolist() != validation_rows.tolist()
    capsys.readouterr()
    assert len(splits.split(table.iloc[:4], seed=0)[1]) == 1
    assert "4 clips, or groups of clips, fill only 4 of 5 folds" in capsys.readouterr().out
    with pytest.raises(ValueError, match="1 clips of one group cannot be split: add clips"):
        splits.split(table.iloc[:1], seed=0)


def test_split_of_the_mini_set_does_not_change(competition):
    validation_rows = [
        2, 5, 6, 15, 17, 19, 24, 37, 46, 48, 58, 59, 63, 64, 65, 67, 72, 74, 82, 95, 103, 110, 116, 121, 124,
        128, 154, 161, 162, 168, 176, 179, 180, 184, 187, 188, 189, 191, 195, 204, 206, 212, 216, 219, 230,
        235, 236, 237,
    ]  # fmt: skip
    table = competition.curated
    for same in (table, table.assign(freesound_id=range(len(table))), table.assign(group=""), table.assign(group=None)):
        assert splits.split(same, seed=0)[1].tolist() == validation_rows


@pytest.mark.parametrize("columns", [["group"], ["freesound_id"], ["group", "freesound_id"]])
def test_split_keeps_groups_together_and_stratifies_by_class(columns):
    rng = np.random.default_rng(0)
    group = rng.integers(0, 400, 2000)
    table = pd.DataFrame({"labels": rng.choice(list("abcdefghij"), 400)[group], columns[0]: group})
    if len(columns) == 2:
        table["freesound_id"] = range(2000)  # `group` takes precedence
    train_rows, validation_rows = splits.split(table, seed=0)
    assert sorted([*train_rows, *validation_rows]) == list(range(2000))
    assert not set(group[train_rows]) & set(group[validation_rows])
    share = table["labels"].iloc[validation_rows].value_counts() / table["labels"].value_counts()
    assert share.between(0.17, 0.23).all()
    assert len(share) == 10


def test_with_groups_the_validation_split_is_the_fold_nearest_its_share_and_varies_by_seed():
    big = pd.DataFrame({"group": ["tape"] * 40 + list(range(80)), "labels": list("a" * 60 + "b" * 30 + "c" * 30)})
    even = pd.DataFrame({"group": np.repeat(range(10), 10), "labels": list("abcdefghij") * 10})
    for seed in range(4):
        validation = big.iloc[splits.split(big, seed)[1]]
        assert "tape" not in set(validation["group"])
        assert len(validation) == 17  # closer to 24, a fifth of 120, than the 52 of the tape's fold
    assert len({tuple(even["group"].iloc[splits.split(even, seed)[1]]) for seed in range(4)}) > 1


def test_copies_and_their_groups_stay_together():
    table = pd.DataFrame({"labels": list("ab") * 50, "content_hash": [f"h{row // 2 % 40}" for row in range(100)]})
    fold = splits.folds(table, 5, seed=0)
    assert (table.assign(fold=fold).groupby("content_hash")["fold"].nunique() == 1).all()
    assert splits.apart(table, table.iloc[:2]).tolist() == [row for row in range(100) if row // 2 % 40]
    chain = pd.DataFrame({"labels": list("ab") * 4, "group": list("xxyyzzvv"), "content_hash": list("13325678")})
    x, y, *others = (set(some) for some in np.split(splits.folds(chain, 3, seed=0), 4))
    assert x == y
    assert all(len(some) == 1 for some in (x, *others))


def test_copies_are_never_on_both_sides_of_a_split(competition, tmp_path):
    table = competition.curated.head(30)
    twice = pd.concat([table, table.assign(fname="copy-" + table["fname"])], ignore_index=True)
    cache = mel_cache.build(twice, tmp_path, "twice", config.QUICK.mel, n_jobs=1)
    sides = dataset.load_split(cache, twice, competition.classes, config.QUICK, "cpu")
    train_clips, validation = ({name.removeprefix("copy-") for name in side.table["fname"]} for side in sides)
    assert validation and train_clips.isdisjoint(validation)


def test_classes_of_few_clips_are_spread_even_if_there_are_copies():
    table = pd.DataFrame({"labels": np.repeat([f"class{number}" for number in range(40)], 3)})
    table["content_hash"] = [f"h{max(1, row)}" for row in range(120)]  # the first two are copies
    fold = splits.folds(table, 5, seed=0)
    assert fold[0] == fold[1]
    assert (table.assign(fold=fold)[3:].groupby("labels")["fold"].nunique() == 3).all()


def test_few_groups_of_one_class_each_leave_no_fold_empty():
    clips = {"g0": ("e", 8), "g1": ("d", 7), "g2": ("c", 5), "g3": ("a", 5), "g4": ("d", 11)}
    table = pd.DataFrame([(label, group) for group, (label, n) in clips.items() for _ in range(n)])
    fold = splits.folds(table.set_axis(["labels", "group"], axis=1), 5, seed=0)
    assert sorted(set(fold)) == list(range(5))


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
