import numpy as np
import pandas as pd
import pytest
import soundfile

from tests import shared_sounds
from utils import config, dataset, mel_cache, splits


def test_the_seed_draws_the_split_and_few_clips_fill_fewer_folds(capsys):
    table = pd.DataFrame({"labels": list("abcdefghij") * 10})
    assert splits.split(table, seed=0)[1].tolist() != splits.split(table, seed=1)[1].tolist()
    capsys.readouterr()
    assert len(splits.split(table.iloc[:4], seed=0)[1]) == 1
    assert "4 clips, or groups of clips, fill only 4 of 5 folds" in capsys.readouterr().out


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


def test_noisy_clips_that_share_a_group_are_left_out_whichever_column_both_have():
    noisy = pd.DataFrame({"group": ["a", "b", "c"], "freesound_id": ["1", "2", ""]})
    assert splits.apart(noisy, pd.DataFrame({"freesound_id": ["1", "3"]})).tolist() == [1, 2]
    assert splits.apart(noisy, pd.DataFrame({"fname": ["1"]})).tolist() == [0, 1, 2]
    noisy = pd.DataFrame({"group": ["a", "", ""], "content_hash": ["x", "x", "y"]})  # the second is a copy of the first
    assert splits.apart(noisy, pd.DataFrame({"group": ["a"], "content_hash": ["z"]})).tolist() == [2]


def test_published_folds_are_used_as_they_are(capsys):
    table = pd.DataFrame({"labels": list("aabbab") * 2, "fold": [str(n) for n in (10, 2, 1, 1, 2, 10) * 2]})
    assert splits.folds(table, 5, seed=0).tolist() == [2, 1, 0, 0, 1, 2] * 2
    assert not capsys.readouterr().out
    splits.folds(table.assign(labels=["only", *table["labels"][1:]]), 5, seed=0)
    assert "All clips of only are in one fold" in capsys.readouterr().out
    splits.folds(table.assign(group=[*"xxyyzz", *"uuuuuu"]), 5, seed=0)
    assert "puts 3 groups of clips into several folds" in capsys.readouterr().out
    with pytest.raises(ValueError, match="the column fold is '3' for every clip"):
        splits.folds(table.assign(fold="3"), 5, seed=0)
    with pytest.raises(ValueError, match="the column fold has the value 'valid': number the folds"):
        splits.folds(table.assign(fold=["valid", "1"] * 6), 5, seed=0)
    with pytest.raises(ValueError, match="the column fold is empty in 1 rows"):
        splits.folds(table.assign(fold=["", *table["fold"][1:]]), 5, seed=0)


def test_clips_that_share_sound_are_a_group(tmp_path):
    rng = np.random.default_rng(0)
    one, two, other = rng.uniform(-0.5, 0.5, (3, 22_050))
    mixed = np.concatenate([0.01 * other[:5000], 0.6 * one + 0.3 * two])
    clips = {"one": one, "other": other, "mixed": mixed, "two": two}
    for name, samples in clips.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 22_050)
    table = pd.DataFrame({"path": [str(tmp_path / f"{name}.wav") for name in clips]})
    assert shared_sounds.shared(table, 3).tolist() == [0, 1, 0, 0]
