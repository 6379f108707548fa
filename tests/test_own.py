import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests import drum_kits
from utils import audio, data, mel_cache, own, splits
from utils.config import MelConfig


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, 0.1 * np.random.default_rng(list(name.encode())).standard_normal(4000), 8000)
    return folder


@pytest.fixture
def sounds(tmp_path):
    """Two classes, of ten and five clips; file names repeat and are unusual."""
    barks = [f"Bark/take {i % 5}/my: dog's é.{'wav' if i < 5 else 'FLAC'}" for i in range(10)]
    return write(tmp_path / "sounds", *barks, *[f"Church bell/{i}.ogg" for i in range(5)])


def test_folders_become_a_competition(sounds, tmp_path):
    target = own.make_dataset(sounds, tmp_path / "made" / "target")
    competition = data.Competition(target)
    assert competition.classes == ["Bark", "Church bell"]
    assert competition.curated["labels"].value_counts().to_dict() == {"Bark": 8, "Church bell": 4}
    assert competition.noisy.empty
    assert sorted(competition.test["labels"]) == ["Bark", "Bark", "Church bell"]
    # Each sound is in one set, once, labeled with its folder.
    everything = [os.path.realpath(path) for table in (competition.curated, competition.test) for path in table["path"]]
    assert sorted(everything) == [str(path.resolve()) for path in audio.find_sounds(sounds)]
    for table in (competition.curated, competition.test):
        for path, label in zip(table["path"], table["labels"]):
            assert Path(os.path.realpath(path)).relative_to(sounds.resolve()).parts[0] == label
    assert len(mel_cache.build(competition.curated, tmp_path, "curated", MelConfig(), n_jobs=1)) == 12
    assert os.listdir(target.parent) == ["target"]


def test_long_names_are_shortened(tmp_path):
    wide = "\N{MATHEMATICAL BOLD CAPITAL A}" * 50  # four bytes each
    write(tmp_path / "sounds", *(f"{name}/{wide}{i}.wav" for name in (wide, "Bark") for i in range(5)))
    competition = data.Competition(own.make_dataset(tmp_path / "sounds", tmp_path / "target"))
    assert competition.classes == ["Bark", wide] and len(competition.curated) + len(competition.test) == 10


def test_a_folder_without_sounds_is_reported(sounds, tmp_path, capsys):
    for name in ("Purr/1.aiff", "__MACOSX/Bark/._1.wav"):
        (sounds / name).parent.mkdir(parents=True)
        (sounds / name).write_text("not a sound")
    assert data.Competition(own.make_dataset(sounds, tmp_path / "target")).classes == ["Bark", "Church bell"]
    printed = capsys.readouterr().out
    assert "folders without sounds are not used as classes: Purr, __MACOSX" in printed
    assert "skipped 1 of 16 files, such as 1.aiff" in printed


def test_the_seed_draws_the_test_set(sounds, tmp_path):
    drawn = [
        own.make_dataset(sounds, tmp_path / name, seed=seed) / "test_labels.csv"
        for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    ]
    assert drawn[0].read_text() == drawn[1].read_text() != drawn[2].read_text()


def test_parts_of_recordings_become_clips_and_those_of_a_recording_stay_together(tmp_path):
    """A table of detections, once corrected, is a table to train on."""
    rows, t = [], np.arange(10 * 8000) / 8000  # s
    (tmp_path / "sounds").mkdir()
    for number, suffix in enumerate(["wav", "flac", "OGG", "mp3", "wav"]):
        louder = t / 10 * np.sin(2 * np.pi * (500 + number) * t)
        soundfile.write(tmp_path / f"sounds/{number}.{suffix}", louder, 8000)
        parts = [(1, "Bark"), (4, "Run"), (4, "Bark,Run")]  # the last two are one clip with two labels
        rows += [(f"{number}.{suffix}", start, start + 1.5, label) for start, label in parts]
    table = pd.DataFrame(rows, columns=["fname", "start", "end", "labels"]).assign(score=0.9)
    table.to_csv(tmp_path / "found.csv", index=False)
    target = own.make_dataset(tmp_path / "sounds", tmp_path / "target", tmp_path / "found.csv")
    competition = data.Competition(target)
    assert set(competition.curated["group"]) | set(competition.test["group"]) == set(table["fname"])
    assert not set(competition.curated["group"]) & set(competition.test["group"])
    clips = pd.concat([competition.curated, competition.test])
    assert len(clips) == 10
    for clip in clips.itertuples():
        samples, rate = soundfile.read(clip.path)
        assert (len(samples), rate, clip.score, clip.fname[-4:]) == (12_000, 8000, "0.9", ".wav")
        assert clip.labels == ("Bark" if float(clip.start) == 1 else "Run,Bark")
        assert samples.max() == pytest.approx(float(clip.end) / 10, abs=0.02)
    for column, value, sentence in (
        ("end", 4, r"found.csv: the row fname '0.wav' start '4' end '4' has no times: give seconds"),
        ("start", "0:04", r"found.csv: the row fname '0.wav' start '0:04' end '5.5' has no times: give seconds"),
        (["start", "end", "labels"], [1, 2.5, "Bark"], r"found.csv lists 0.wav more than once"),
        (["start", "end"], [12, 13], r"0.wav has no samples from 12 to 13 s"),
    ):
        wrong = table.astype({"start": object, "end": object})
        wrong.loc[1, column] = value
        wrong.to_csv(tmp_path / "found.csv", index=False)
        with pytest.raises(ValueError, match=sentence):
            own.make_dataset(tmp_path / "sounds", tmp_path / "other", tmp_path / "found.csv")
    table.rename(columns={"start": "Start", "end": "End"}).to_csv(tmp_path / "found.csv", index=False)
    with pytest.raises(ValueError, match=r"found.csv has a column 'Start': write it in small letters"):
        own.make_dataset(tmp_path / "sounds", tmp_path / "other", tmp_path / "found.csv")
    table.drop(columns="end").to_csv(tmp_path / "found.csv", index=False)
    with pytest.raises(ValueError, match=r"found.csv has no column 'end': give start and end, in seconds, or neither"):
        own.make_dataset(tmp_path / "sounds", tmp_path / "other", tmp_path / "found.csv")
    assert not (tmp_path / "other").exists()


def test_a_part_keeps_its_level_and_its_recording_stays_together_however_it_is_written(tmp_path):
    (tmp_path / "sounds").mkdir()
    noise = 1e-4 * np.random.default_rng(0).standard_normal((5, 8000)).astype(np.float32)
    for number, samples in enumerate(noise):
        soundfile.write(tmp_path / f"sounds/{number}.wav", samples, 8000, "FLOAT")
    parts = [("", "0.25", "Bark"), ("0.25", "", "Run"), ("", "", "Bark,Run")]
    rows = [(f"{'./' * (end == '')}{n}.wav", start, end, labels) for n in range(5) for start, end, labels in parts]
    table = pd.DataFrame(rows, columns=["fname", "start", "end", "labels"]).assign(group="")
    table.to_csv(tmp_path / "list.csv", index=False)
    competition = data.Competition(own.make_dataset(tmp_path / "sounds", tmp_path / "target", tmp_path / "list.csv"))
    assert set(competition.test["labels"]) == {"Bark", "Run", "Bark,Run"}
    assert not set(competition.curated["group"]) & set(competition.test["group"])
    for clip in pd.concat([competition.curated, competition.test]).itertuples():
        whole = noise[int(clip.group[0])]
        expected = {"Bark": whole[:2000], "Run": whole[2000:], "Bark,Run": whole}[clip.labels]
        assert np.array_equal(soundfile.read(clip.path, dtype="float32")[0], expected)
        assert os.path.islink(clip.path) == (clip.labels == "Bark,Run")
    time.sleep(1.1)  # some programs write the time into a WAV file, which would then be another clip
    again = data.Competition(own.make_dataset(tmp_path / "sounds", tmp_path / "again", tmp_path / "list.csv"))
    assert data.content_keys(again.test["path"]) == data.content_keys(competition.test["path"])


@pytest.mark.parametrize("column", ["group", "freesound_id"])
def test_parts_of_several_recordings_may_be_a_group(tmp_path, column):
    (tmp_path / "sounds").mkdir()
    for number in range(6):
        soundfile.write(tmp_path / f"sounds/{number}.wav", np.random.default_rng(number).uniform(-1, 1, 8000), 8000)
    rows = [(f"{n}.wav", start, start + 0.4, label) for n in range(6) for start, label in ((0, "Bark"), (0.5, "Run"))]
    table = pd.DataFrame(rows, columns=["fname", "start", "end", "labels"])
    table[column] = [f"site {n // 2}" if start == 0 else "" for n in range(6) for start in (0, 1)]
    table.to_csv(tmp_path / "list.csv", index=False)
    target = own.make_dataset(tmp_path / "sounds", tmp_path / "target", tmp_path / "list.csv")
    curated, test = data.Competition(target).curated, data.read_table(target / "test_labels.csv", [column])
    assert (len(curated), len(test)) == (8, 4)
    assert set(curated[column]) | set(test[column]) == {"site 0", "site 1", "site 2"}
    assert not set(curated[column]) & set(test[column])


def test_recordings_with_a_group_in_common_stay_together_and_overlaps_are_counted(tmp_path, capsys):
    (tmp_path / "sounds").mkdir()
    for number in range(12):
        soundfile.write(tmp_path / f"sounds/{number}.wav", np.random.default_rng(number).uniform(-1, 1, 8000), 8000)
    pairs = [number // 2 for number in range(12)]  # of recordings, in both of which a speaker b is heard
    barks = [(f"{n}.wav", 0, 0.6, "Bark", f"{'ab'[n % 2]} {pair}", pair) for n, pair in enumerate(pairs)]
    runs = [(f"{n}.wav", 0.5, 0.9, "Run", f"{'ac'[n % 2]} {pair}", pair) for n, pair in enumerate(pairs)]
    again = [(f"{n}.wav", 0, 0.6, "Howl", f"b {pair}", pair) for n, pair in enumerate(pairs)]  # the same parts
    table = pd.DataFrame(barks + runs + again, columns=["fname", "start", "end", "labels", "group", "pair"])
    table.to_csv(tmp_path / "list.csv", index=False)
    competition = data.Competition(own.make_dataset(tmp_path / "sounds", tmp_path / "target", tmp_path / "list.csv"))
    assert "12 parts begin before an earlier one of the recording ends" in capsys.readouterr().out
    train, validation = (competition.curated.iloc[rows] for rows in splits.split(competition.curated, seed=0))
    sides = [set(table["pair"]) for table in (train, validation, competition.test)]
    assert all(sides) and sum(map(len, sides)) == 6
    assert set(train["labels"]) == {"Bark,Howl", "Run"}


def test_a_part_is_what_the_whole_recording_has_there_even_if_that_breaks_off(tmp_path, capsys):
    t = np.arange(60 * 8000) / 8000
    sweep = 0.5 * np.sin(2 * np.pi * (300 + 20 * t) * t)
    for name, options in {"a.wav": {"subtype": "GSM610"}, "b.mp3": {"bitrate_mode": "VARIABLE"}, "c.flac": {}}.items():
        file = tmp_path / name
        soundfile.write(file, sweep, 8000, **options)
        if name == "c.flac":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        whole = audio.load_clip(file, MelConfig(sample_rate=8000, fmax=4000))
        for start, end in ((0, 1), (7.3, 8.5), (20, np.inf)):
            part, rate = audio.load_part(file, start, end)
            assert ("breaks off after" in capsys.readouterr().out) == (name == "c.flac" and end == np.inf)
            expected = whole[round(start * rate) : None if end == np.inf else round(end * rate)]
            assert np.allclose(part[:, 0], expected[: len(part)], atol=1e-4), (name, start)
            assert len(expected) - len(part) < (audio.SAMPLES_PER_RETRY if name == "c.flac" and end == np.inf else 1)


def test_sounds_that_are_too_long_for_their_label_are_counted(sounds, tmp_path, capsys):
    soundfile.write(sounds / "Bark" / "all_day.wav", np.zeros(31 * 1000) + 0.1, 1000)
    hears = "1 sounds are longer than 30 s, and training hears a random 2 s of each at a time: cut out"
    own.make_dataset(sounds, tmp_path / "target")
    assert hears in capsys.readouterr().out
    for start, too_long in ((0.1, True), (25, False)):
        starts = [start if "all_day" in str(path) else 0 for path in audio.find_sounds(sounds)]
        listed(sounds, tmp_path, start=starts, end="")
        own.make_dataset(sounds, tmp_path / f"parts {start}", tmp_path / "list.csv")
        assert (hears in capsys.readouterr().out) == too_long


def test_a_csv_file_may_give_several_labels(sounds, tmp_path):
    fnames = [str(path.relative_to(sounds)) for path in audio.find_sounds(sounds)][:6]
    listed = tmp_path / "list.csv"
    pd.DataFrame({"fname": fnames, "labels": ["Bark, Run"] * 3 + ["Bark", "Howl", "Howl,Bark"]}).to_csv(
        listed, index=False
    )
    with pytest.raises(ValueError, match="'Howl' has 2 of at least 3 clips"):
        own.make_dataset(sounds, tmp_path / "target", listed)
    listed.write_text(listed.read_text().replace("Howl,Bark", "Howl,Run").replace(",Bark\n", ',"Howl,Bark"\n'))
    target = own.make_dataset(sounds, tmp_path / "target", listed)
    competition = data.Competition(target)
    assert competition.classes == ["Bark", "Howl", "Run"]
    clips = pd.concat([competition.curated, competition.test])
    made = {os.path.realpath(path): labels for path, labels in zip(clips["path"], clips["labels"])}
    expected = ["Bark,Run"] * 3 + ["Howl,Bark", "Howl", "Howl,Run"]
    assert made == {os.path.realpath(sounds / fname): labels for fname, labels in zip(fnames, expected)}


def listed(sounds, tmp_path, **columns):
    """Write a CSV file of all sounds, labeled with their folders, and these columns."""
    fnames = [str(path.relative_to(sounds)) for path in audio.find_sounds(sounds)]
    labels = [fname.split("/")[0] for fname in fnames]
    pd.DataFrame({"fname": fnames, "labels": labels} | columns).to_csv(tmp_path / "list.csv", index=False)
    return tmp_path / "list.csv"


def test_groups_stay_together_and_every_column_is_kept(sounds, tmp_path):
    speakers = [f"speaker {i // 2}" for i in range(10)] + ["None", "None", "NA", "NA", "speaker 9"]
    csv = listed(sounds, tmp_path, group=speakers, path="mine", recorder=["", *["H4n"] * 14])
    target = own.make_dataset(sounds, tmp_path / "target", csv, seed=1)
    curated, test = data.Competition(target).curated, data.read_table(target / "test_labels.csv", ["group"])
    assert len(curated) + len(test) == 15
    assert len(test) > 0
    assert not set(curated["group"]) & set(test["group"])
    assert sorted([*curated["group"], *test["group"]]) == sorted(speakers)
    assert sorted([*curated["recorder"], *test["recorder"]]) == ["", *["H4n"] * 14]
    assert {os.path.dirname(path) for path in curated["path"]} == {str(target / "train_curated")}


def test_copies_join_the_groups_they_are_in(sounds, tmp_path, capsys):
    paths = audio.find_sounds(sounds)
    shutil.copy(paths[0], paths[14])
    labels = {"labels": ["Bark", "Zipper"] * 7 + ["Bark"]}
    groups = [i // 3 for i in range(15)]
    for seed in range(4):
        csv = listed(sounds, tmp_path, group=groups, **labels)
        target = own.make_dataset(sounds, tmp_path / "target", csv, seed=seed, replace=True)
        curated, test = data.Competition(target).curated, data.read_table(target / "test_labels.csv", ["group"])
        assert {"0", "4"} <= set(curated["group"])
        assert not set(curated["group"]) & set(test["group"])
        assert "copies of another sound: 1" in capsys.readouterr().out


def test_the_test_set_is_the_first_fold_if_there_are_folds(sounds, tmp_path):
    csv = listed(sounds, tmp_path, fold=[i % 5 + 1 for i in range(15)])
    target = own.make_dataset(sounds, tmp_path / "target", csv)
    curated, test = data.Competition(target).curated, data.read_table(target / "test_labels.csv", ["fold"])
    assert (len(set(curated["fold"])), len(set(test["fold"])), len(test)) == (4, 1, 3)
    assert not set(curated["fold"]) & set(test["fold"])
    assert all(map(len, splits.split(curated, seed=0)))  # and a validation split remains
    for folds, sentence in (
        ([""] + [1, 2, 3] * 4 + [1, 2], "the column fold is empty in 1 rows"),
        ([1] * 15, "give 3 folds"),
    ):
        with pytest.raises(ValueError, match=sentence):
            own.make_dataset(sounds, tmp_path / "no", listed(sounds, tmp_path, fold=folds))
    with pytest.raises(
        ValueError, match=r"all clips of the class '.*' are test clips: add some in other groups or folds"
    ):
        own.make_dataset(sounds, tmp_path / "no", listed(sounds, tmp_path, fold=[1] * 10 + [2, 3, 2, 3, 2]))


def test_one_file_cannot_have_different_labels(sounds, tmp_path):
    csv = listed(sounds, tmp_path)
    csv.write_text(csv.read_text() + "./Church bell/../Church bell/0.ogg,Bark\n")
    with pytest.raises(ValueError, match=r"Church bell/0\.ogg and .*Church bell/0\.ogg are the same sound: keep one"):
        own.make_dataset(sounds, tmp_path / "target", csv)
    (sounds / "Bark" / "again.ogg").symlink_to(sounds / "Church bell" / "0.ogg")
    with pytest.raises(ValueError, match=r"again\.ogg and .*0\.ogg are the same sound"):
        own.make_dataset(sounds, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_file_name_that_is_not_utf8_is_reported_before_writing(sounds, tmp_path):
    csv = listed(sounds, tmp_path)
    os.rename(sounds / "Church bell/0.ogg", os.fsencode(sounds / "Church bell") + b"/\xe9.ogg")
    for given in (None, csv):
        with pytest.raises(
            ValueError, match=r"sounds has 1 file names that are not UTF-8, such as b'Church bell/\\xe9\.ogg'"
        ):
            own.make_dataset(sounds, tmp_path / "target", given)
    assert not (tmp_path / "target").exists()


def test_a_folder_that_cannot_be_read_is_reported_not_skipped(sounds, tmp_path, monkeypatch):
    scandir = os.scandir

    def locked(path):  # chmod does not lock out root
        if os.path.basename(path) == "Bark":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError, match=r"Bark cannot be read \(Permission denied\): allow it"):
        own.make_dataset(sounds, tmp_path / "target")


def test_two_groups_are_too_few(sounds, tmp_path):
    csv = listed(sounds, tmp_path, group=[i % 2 for i in range(15)])
    with pytest.raises(ValueError, match=r"of the clips left for training, .* clips of one group cannot be split"):
        own.make_dataset(sounds, tmp_path / "target", csv)
    assert not (tmp_path / "target").exists()


def test_a_broken_link_is_rejected_not_skipped(sounds, tmp_path):
    (sounds / "Church bell/moved.wav").symlink_to(sounds / "no longer here.wav")
    with pytest.raises(FileNotFoundError, match=r"moved\.wav is a link to a missing file"):
        own.make_dataset(sounds, tmp_path / "target")


def test_a_link_to_a_folder_is_rejected_not_skipped(sounds, tmp_path):
    elsewhere = shutil.copytree(next(path for path in sounds.iterdir() if path.is_dir()), tmp_path / "elsewhere")
    (sounds / ".hidden").symlink_to(elsewhere)
    assert audio.find_sounds(sounds)
    (sounds / "linked").symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"linked is a link to a folder, which is not followed"):
        own.make_dataset(sounds, tmp_path / "target")


def test_sounds_are_copied_if_they_cannot_be_linked(sounds, tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", no_links)
    test = data.Competition(own.make_dataset(sounds, tmp_path / "target")).test
    assert all(os.path.isfile(path) and not os.path.islink(path) for path in test["path"])


def test_only_a_dataset_that_was_made_here_is_replaced(sounds, tmp_path):
    target = own.make_dataset(sounds, tmp_path / "target")
    with pytest.raises(FileExistsError, match="target already exists"):
        own.make_dataset(sounds, target)
    write(sounds, "Purr/1.wav", "Purr/2.wav", "Purr/3.wav")
    assert data.Competition(own.make_dataset(sounds, target, replace=True)).classes == ["Bark", "Church bell", "Purr"]
    (sounds / "test_labels.csv").write_text("fname,labels\n")  # which any dataset may have
    before = sorted(sounds.rglob("*"))
    with pytest.raises(FileExistsError, match="sounds already exists"):
        own.make_dataset(sounds, sounds, replace=True)
    with pytest.raises(ValueError, match=r"is in .*sounds, the folder of the sounds: choose a target outside"):
        own.make_dataset(sounds, sounds / "target")
    assert sorted(sounds.rglob("*")) == before
    inside = sounds.rename(target / "sounds")
    with pytest.raises(ValueError, match=r"sounds is in .*target, which would be replaced: move it out of there"):
        own.make_dataset(inside, target, replace=True)
    assert list(inside.rglob("*.ogg"))
    csv = target / "mine.csv"
    csv.write_text("fname,labels\nsounds/Bark/0.ogg,Bark\n")
    with pytest.raises(ValueError, match=r"mine.csv is in .*target, which would be replaced: move it out of there"):
        own.make_dataset(tmp_path, target, csv, replace=True)
    csv = csv.rename(tmp_path / "mine.csv")
    pd.DataFrame({"fname": [str(next(inside.rglob("*.ogg")).relative_to(tmp_path))], "labels": "Bark"}).to_csv(csv)
    with pytest.raises(ValueError, match=r"ogg is in .*target, which would be replaced: move it out of there"):
        own.make_dataset(tmp_path, target, csv, replace=True)


@pytest.mark.parametrize(
    "fname", ["../secret.wav", "Bark/../../secret.wav", "/etc/passwd", "Bark", "", "nowhere.wav", 300 * "a"]
)
def test_a_csv_file_may_list_only_files_in_the_folder(sounds, tmp_path, fname):
    write(tmp_path, "secret.wav")
    pd.DataFrame({"fname": [fname], "labels": ["Bark"]}).to_csv(tmp_path / "list.csv", index=False)
    outside = ".." in fname or fname.startswith("/")
    with pytest.raises(
        ValueError if outside else FileNotFoundError, match="which is not relative to" if outside else "which is not in"
    ):
        own.make_dataset(sounds, tmp_path / "target", tmp_path / "list.csv")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(("names", "sentence"), [
    ([], "There is no sound in"),
    (["A/1.wav", "A/2.wav", "A/3.wav"], r"names too few classes \(1, and a model needs at least two\)"),
    (["A/1.wav", "A/2.wav", "A/3.wav", "B/1.wav", "B/2.wav"], "'B' has 2 of at least 3 clips"),
    (["A,B/1.wav"], "'A,B' has a comma"),
    (["A/1.wav", "loose.wav"], "loose.wav is in no class"),
    ([f"{name}/{i}.wav" for name in ("A", "labels") for i in range(3)], "cannot be called 'labels'"),
    ([f"{name}/{i}.wav" for name in ("A", "A ") for i in range(3)], "cannot be called 'A '"),
])  # fmt: skip
def test_invalid_datasets_are_rejected(tmp_path, names, sentence):
    (tmp_path / "sounds").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        own.make_dataset(write(tmp_path / "sounds", *names), tmp_path / "target")
    assert os.listdir(tmp_path) == ["sounds"]


def test_an_empty_label_or_file_is_named(sounds, tmp_path):
    csv = listed(sounds, tmp_path)
    csv.write_text(csv.read_text().replace(",Bark\n", ",\n", 1))
    with pytest.raises(ValueError, match=r"list\.csv: Bark/take .* has an empty label: add the label"):
        own.make_dataset(sounds, tmp_path / "target", csv)
    for name in ("Bark/new.ogg", "Church bell/new.ogg"):
        (sounds / name).touch()
    with pytest.raises(ValueError, match=r"new\.ogg is empty: replace or remove it"):
        own.make_dataset(sounds, tmp_path / "target")


def test_the_command_line_shows_the_dataset_and_the_next_command(sounds, tmp_path, capsys, refused):
    own.main([str(sounds), str(tmp_path / "my target")])
    shown = capsys.readouterr().out
    assert ["Bark", "8", "2"] in [line.split() for line in shown.splitlines()]
    assert f"python -m utils.run --data '{tmp_path / 'my target'}'" in shown
    assert "already exists" in refused(own.main, sounds, tmp_path / "my target")
    own.main([str(sounds), str(tmp_path / "my target"), "--replace"])


def test_a_class_without_a_test_clip_is_named(tmp_path, capsys):
    names = [f"{label}/{i}.wav" for label, count in (("Bark", 11), ("Meow", 11), ("Purr", 3)) for i in range(count)]
    sounds = write(tmp_path / "sounds", *names)
    target = own.make_dataset(sounds, tmp_path / "target")
    tested = set(data.Competition(target).test["labels"])
    own.main([str(sounds), str(target), "--replace"])
    assert tested == {"Bark", "Meow"}
    assert "say nothing about Purr: no test clip has this label" in capsys.readouterr().out


def test_copies_of_a_sound_stay_together(sounds, tmp_path):
    for i in range(5):
        shutil.copy(sounds / f"Church bell/{i}.ogg", sounds / f"Church bell/again {i}.ogg")
    target = own.make_dataset(sounds, tmp_path / "target")
    competition = data.Competition(target)
    train, test = (
        {Path(path).read_bytes() for path in table["path"]} for table in (competition.curated, competition.test)
    )
    assert test
    assert not train & test
    fnames = [str(path.relative_to(sounds)) for path in (sounds / "Church bell").iterdir()]
    labels = ["Church bell,Bark" if "again" in fname else "Bark,Church bell" for fname in fnames]
    pd.DataFrame({"fname": fnames, "labels": labels}).to_csv(tmp_path / "list.csv", index=False)
    assert own.make_dataset(sounds, tmp_path / "same labels", tmp_path / "list.csv").is_dir()


def test_drum_sounds_are_labeled_by_the_names_of_their_instruments(tmp_path):
    names = {"a.wav": "Kick 1", "b.wav": "Hat Cl", "c.wav": "Whistle", "d.wav": "Crash"}
    kit = write(tmp_path / "kits/Loud", *names)
    layer = "<instrument><name>{}</name><layer><filename>{}</filename></layer></instrument>"
    instruments = "".join(layer.format(name, file) for file, name in names.items())
    (kit / "drumkit.xml").write_text(f'<drumkit_info xmlns="http://x"><list>{instruments}</list></drumkit_info>')
    table = drum_kits.sounds(tmp_path / "kits")
    assert dict(zip(map(str, table["fname"]), table["labels"])) == {
        "Loud/a.wav": "Bass drum", "Loud/b.wav": "Closed hi-hat", "Loud/d.wav": "Crash",
    }  # fmt: skip
    assert set(table["group"]) == {"Loud"}
    with pytest.raises(SystemExit, match="apt-get install"):
        drum_kits.sounds(kit)
