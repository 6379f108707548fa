"""Files and tables as people have them: each is read correctly, or rejected with its name and the reason."""

import errno
import os
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from utils import audio, data, mel_cache, submission
from utils.config import QUICK, MelConfig
from utils.dataset import MelDataset, load_split

SETTINGS = MelConfig()
RATE = SETTINGS.sample_rate


def sound(rate=RATE, seconds=1.0):
    """Three decaying tones under 4 kHz, loud from the first sample to the last, at any rate."""
    t = np.arange(round(seconds * rate)) / rate
    return 0.25 * np.exp(-t) * sum(np.sin(2 * np.pi * hz * t) for hz in (300, 1100, 3100))


SQUARE = np.sign(np.sin(2 * np.pi * 440 * (np.arange(RATE) + 0.5) / RATE))


def written(samples, rate=RATE, **how):
    """A case: `samples` as a file of this rate, subtype and format."""
    return lambda file: soundfile.write(file, samples, rate, **{"format": "WAV", **how})


def patched(change, **how):
    """A case: the sound's file, with its bytes changed."""

    def make(file):
        written(sound(), **how)(file)
        file.write_bytes(change(file.read_bytes()))

    return make


def with_bytes(place, new):
    return lambda old: old[:place] + new + old[place + len(new) :]


def link_to_a_good_file(file):
    written(sound())(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def no_permission(file):
    written(sound())(file)
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read every file")


# The file, the sound in it, and the tolerance in dB where the mel is within 30 dB of the loudest.
READABLE = {
    "silent": (written(np.zeros(RATE)), np.zeros(RATE), 0),
    "one sample": (written([0.5]), [0.5], 0),
    "shorter than a window": (written(sound(seconds=0.02)), sound(seconds=0.02), 0),
    "full-scale square wave": (written(SQUARE), SQUARE, 0),
    "square wave of floats": (written(SQUARE, subtype="FLOAT"), SQUARE, 0.01),
    **{
        f"{rate} Hz": (written(sound(rate), rate), sound(), 1)
        for rate in (8000, 11_025, 16_000, 22_050, 32_000, 48_000, 96_000, 192_000)
    },
    **{f"{n} channels": (written(np.repeat(sound()[:, None], n, axis=1)), sound(), 0.01) for n in range(1, 9)},
    **{
        subtype: (written(sound(), subtype=subtype), sound(), 0.01)
        for subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
    },
    "8 bits": (written(sound(), subtype="PCM_U8"), sound(), 1),
    "8-bit mu-law": (written(sound(), subtype="ULAW"), sound(), 1),
    **{kind: (written(sound(), format=kind), sound(), 0.01) for kind in ("FLAC", "AIFF", "CAF", "W64", "RF64")},
    "Ogg": (written(sound(), format="OGG"), sound(), 1.5),
    "MP3 named .wav": (written(sound(), format="MP3"), sound(), 1.5),
    "WAV that promises 4 GB": (patched(with_bytes(40, b"\xff" * 4)), sound(), 0),
    "WAV that promises 2 GB": (patched(with_bytes(40, struct.pack("<I", 2**31 - 1 - 36))), sound(), 0),
    "WAV with other bytes after its data": (patched(lambda old: old + b"LIST\4\0\0\0abcd"), sound(), 0),
    "FLAC that promises 8 GB": (patched(with_bytes(22, b"\xff" * 4), format="FLAC"), sound(), 0.01),
    "FLAC of unknown length": (patched(with_bytes(22, b"\0" * 4), format="FLAC"), sound(), 0.01),
    "MP3 with a picture in its last tag": (
        patched(lambda old: old + b"APETAGEX" + bytes(9000), format="MP3"),
        sound(),
        1.5,
    ),
    "WAV with a tag that is no chunk": (patched(lambda old: old + b"ID3\4" + bytes(9000)), sound(), 0),
    "link": (link_to_a_good_file, sound(), 0),
}
UNREADABLE = {
    "zero-length": (lambda file: file.touch(), "cannot be read as audio"),
    "header only": (patched(lambda old: old[:44]), "has no samples"),
    "half a header": (patched(lambda old: old[:20]), "cannot be read as audio"),
    "text": (lambda file: file.write_text("no audio"), r"cannot be read as audio \(Format not recognised\)"),
    "folder": (lambda file: file.mkdir(), r"cannot be read as audio \(Is a directory\)"),
    "broken link": (lambda file: file.symlink_to("nowhere"), r"cannot be read as audio \(a link to a missing file\)"),
    "no permission": (no_permission, r"cannot be read as audio \(Permission denied\)"),
    "NaN": (written([0.1, np.nan, 0.1], subtype="FLOAT"), "not finite"),
    "infinite": (written([0.1, -np.inf, 0.1], subtype="FLOAT"), "not finite"),
    "infinite both ways": (written([[np.inf, -np.inf], [0, 0]], subtype="FLOAT"), "not finite"),
    "integers taken for floats": (written([0.1, 1e30, 0.1], subtype="FLOAT"), "far beyond full scale"),
    "FLAC cut in its first block": (patched(lambda old: old[:200], format="FLAC"), "cannot be read as audio"),
    "Ogg cut in its first page": (patched(lambda old: old[:3000], format="OGG"), "cannot be read as audio"),
    "1 Hz": (patched(with_bytes(24, struct.pack("<I", 1))), "has an implausible sample rate of 1 Hz"),
    "no channels": (patched(with_bytes(22, b"\0\0")), "cannot be read as audio"),
}
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE)  # several pages of an Ogg


def halved(**how):
    """A case: the first half of the bytes of 4 s of noise."""

    def make(file):
        written(NOISE, **how)(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return make


def with_more(make, change=bytes):
    """A case: the file that `make` writes, with its bytes changed, followed by the same unchanged."""

    def make_both(file):
        make(file)
        file.write_bytes(change(file.read_bytes()) + file.read_bytes())

    return make_both


CONTINUES = r"continues after [14] s, where its header says it ends: convert it with another program"
# The file, the reason reported, and, if its samples are those of the sound as far as they go, the sound.
DAMAGED = {
    "WAV cut after 8 samples": (patched(lambda old: old[: 44 + 16]), "breaks off after 0.000181 of 1 s", sound()),
    "WAV cut by a byte": (patched(lambda old: old[:-1]), "breaks off after 1 of 1 s", sound()),
    **{
        kind: (halved(format=kind), r"breaks off after [12]\.?\d* of 4 s", NOISE)
        for kind in ("WAV", "AIFF", "W64", "FLAC")
    },
    "FLAC with a wrong byte": (
        patched(lambda old: with_bytes(len(old) // 2, b"?" * 9)(old), format="FLAC"),
        r"breaks off after 0\.\d+ of 1 s",
        sound(),
    ),
    "Ogg": (halved(format="OGG"), r"has no end-of-stream mark after [12]\.?\d* s", None),
    "MP3": (halved(format="MP3"), r"breaks off after [12]\.?\d* of 4 s", None),
    **{f"two {kind} in one": (with_more(written(NOISE, format=kind)), CONTINUES, None) for kind in ("OGG", "MP3")},
    "WAV that goes on": (
        with_more(written(NOISE), lambda old: with_bytes(40, struct.pack("<I", 2 * RATE))(old)),
        CONTINUES,
        NOISE,
    ),
}


def table_of(*files):
    return pd.DataFrame({"fname": [file.name for file in files], "path": [str(file) for file in files]})


@pytest.mark.parametrize("what", [*READABLE, *UNREADABLE])
def test_a_clip_has_the_right_mel_or_a_row_in_the_report(tmp_path, capfd, what):
    make, expected, *tolerance = READABLE.get(what) or UNREADABLE[what]
    plain, file = tmp_path / "plain.wav", tmp_path / "x.wav"
    written(sound() if isinstance(expected, str) else expected)(plain)
    make(file)
    tracemalloc.start()
    cache = mel_cache.build(table_of(plain, file), tmp_path / "cache", "wild", SETTINGS, n_jobs=1)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    if tolerance:
        right, ours = cache["plain.wav"].astype(float), cache["x.wav"].astype(float)
        assert cache.unreadable.empty
        assert cache.damaged.empty
        assert ours.shape == right.shape
        loud = right >= right.max() - 30
        assert np.abs(ours - right)[loud].max() <= tolerance[0]
    else:
        assert list(cache.unreadable["fname"]) == ["x.wav"]
        assert cache.unreadable["reason"].str.contains(expected).all()
        assert list(cache.clips["fname"]) == ["plain.wav"]
        with pytest.raises(KeyError, match=rf"x\.wav is not in .*: it .*{expected}.*replace the file"):
            cache["x.wav"]
        with pytest.raises(ValueError, match=rf"x\.wav .*{expected}.*replace the file"):
            audio.load_clip(file, SETTINGS)


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_used_as_far_as_it_goes_and_reported(tmp_path, capsys, what):
    make, reason, whole = DAMAGED[what]
    plain, file = tmp_path / "plain.wav", tmp_path / "NA"
    written(sound())(plain)
    make(file)
    cache = mel_cache.build(table_of(plain, file), tmp_path / "cache", "wild", SETTINGS, n_jobs=1)
    assert cache.unreadable.empty
    assert list(cache.damaged["fname"]) == ["NA"]
    assert cache.damaged["reason"].str.fullmatch(reason).all()
    assert list(cache.clips["fname"]) == ["plain.wav", "NA"]
    samples = audio.load_clip(file, SETTINGS)
    if whole is not None:
        assert 0 < len(samples) <= len(whole)
        assert np.abs(samples - whole[: len(samples)]).max() < 1e-4
    for use in (mel_cache.build, mel_cache.load):  # both print it, and where all are listed
        capsys.readouterr()
        use(table_of(plain, file), tmp_path / "cache", "wild", SETTINGS)
        printed = capsys.readouterr().out
        assert f"1 of 2 clips are damaged and used as far as they go, see {cache.folder}/damaged.csv\n  NA " in printed


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_long_file_is_read_in_blocks_without_a_seam(tmp_path, monkeypatch, kind):
    file = tmp_path / "long"
    written(sound(seconds=3), format=kind)(file)
    monkeypatch.setattr(audio, "SAMPLES_PER_READ", 30_000)
    assert np.abs(audio.load_clip(file, SETTINGS) - soundfile.read(file)[0]).max() < 1e-4


@pytest.fixture
def wild(competition, tmp_path, monkeypatch):
    """The competition with two curated and two test clips that cannot be read, and a cache of each set."""
    tables = {}
    for name in ("curated", "test"):
        tables[name] = getattr(competition, name).iloc[:60].copy()
        for row in (3, 8):
            file = tmp_path / tables[name]["fname"][row]
            file.write_text("no audio")
            tables[name].loc[row, "path"] = str(file)
        monkeypatch.setattr(competition, name, tables[name])
    caches = {
        name: mel_cache.build(table, tmp_path / "cache", name, SETTINGS, n_jobs=1) for name, table in tables.items()
    }
    return competition, caches


def test_training_stops_at_unreadable_clips_unless_the_preset_drops_them(wild, capsys):
    competition, caches = wild
    table, classes = competition.curated, competition.classes
    bad = list(table["fname"][[3, 8]])
    listed = rf"2 of 60 training clips cannot be read:\n  {bad[0]} .*\n  {bad[1]} .*\n.*FAT_DROP_UNREADABLE"
    with pytest.raises(ValueError, match=listed):
        load_split(caches["curated"], table, classes, QUICK, "cpu")
    training, validation = load_split(caches["curated"], table, classes, replace(QUICK, drop_unreadable=True), "cpu")
    assert "2 of 60 training clips cannot be read and are left out" in capsys.readouterr().out
    assert sorted([*training.table["fname"], *validation.table["fname"]]) == sorted(set(table["fname"]) - set(bad))


def test_an_unreadable_test_clip_gets_the_shares_of_the_classes(wild, capsys, tmp_path):
    competition, caches = wild
    clips = MelDataset(caches["test"], caches["test"].readable(competition.test), competition.classes)
    scores = np.random.default_rng(0).random((58, 12), dtype=np.float32)
    every = submission.fill_unreadable(scores, clips.table, competition)
    file = submission.write(tmp_path / "submission.csv", every, competition, runs=[])
    shares = competition.curated["labels"].str.get_dummies(",").mean().reindex(competition.classes, fill_value=0)
    assert np.allclose(submission.check(file, competition).iloc[[3, 8], 1:].astype(float), [shares, shares])
    assert np.array_equal(np.delete(every, [3, 8], axis=0), scores)
    printed = capsys.readouterr().out
    assert all(f"WARNING: {fname} cannot be read" in printed for fname in competition.test["fname"][[3, 8]])
    assert np.array_equal(submission.fill_unreadable(every, competition.test, competition), every)


def test_the_cache_is_reused_until_an_unreadable_clip_is_replaced_by_one_of_the_same_size(tmp_path, capsys):
    plain, file = tmp_path / "plain.wav", tmp_path / "x.wav"
    written(sound())(plain)
    file.write_bytes(b"?" * plain.stat().st_size)
    for done, unreadable in [("made", 1), ("reused", 1), ("made", 0), ("reused", 0)]:
        cache = mel_cache.build(table_of(plain, file), tmp_path / "cache", "wild", SETTINGS, n_jobs=1)
        printed = capsys.readouterr().out
        assert f"wild: {done} " in printed
        assert ("1 of 2 clips cannot be read" in printed) == (unreadable == 1)
        assert len(cache.unreadable) == unreadable
        if done == "reused":
            file.write_bytes(plain.read_bytes())


def test_a_set_without_readable_clips_is_rejected_with_a_short_list(tmp_path):
    files = [tmp_path / f"{i}.wav" for i in range(30)]
    for file in files:
        file.touch()
    with pytest.raises(
        ValueError, match=r"wild: none of 30 clips can be read:(.|\n)*  9\.wav cannot .*\n  and 20 more$"
    ):
        mel_cache.build(table_of(*files), tmp_path / "cache", "wild", SETTINGS, n_jobs=1)
    assert not list((tmp_path / "cache").iterdir())


def test_durations_leave_out_clips_of_unknown_duration(tmp_path, capsys):
    files = [tmp_path / name for name in ("plain.wav", "text.wav", "unknown.flac")]
    written(sound())(files[0])
    files[1].write_text("no audio")
    READABLE["FLAC of unknown length"][0](files[2])
    assert audio.durations(table_of(*files)).tolist() == [1]
    assert "2 of 3 clips have an unknown duration" in capsys.readouterr().out


@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_clip_changed_at_its_beginning_middle_or_end_is_cached_again(tmp_path, capsys, place):
    samples, file = 0.5 * NOISE, tmp_path / "x.wav"
    for level in (1, 0.5):
        samples[int(place * (len(samples) - 500)) :][:500] *= level
        written(samples)(file)
        mel_cache.build(table_of(file), tmp_path / "cache", "wild", SETTINGS, n_jobs=1)
        assert "wild: made" in capsys.readouterr().out


def test_a_cache_that_cannot_be_rebuilt_is_kept(tmp_path, monkeypatch):
    """One more clip can be read now, but the disk is full."""
    plain, mended = tmp_path / "plain.wav", tmp_path / "x.wav"
    written(0.5 * SQUARE)(plain)
    written(0.9 * SQUARE)(mended)
    monkeypatch.setattr(audio, "LOUDEST", 0.7)
    earlier = mel_cache.build(table_of(plain, mended), tmp_path / "cache", "wild", SETTINGS, n_jobs=1)
    assert list(earlier.unreadable["fname"]) == ["x.wav"]
    monkeypatch.setattr(audio, "LOUDEST", 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="free some space"):
        broken.setattr(np.lib.format, "write_array_header_1_0", full)
        mel_cache.build(table_of(plain, mended), tmp_path / "cache", "wild", SETTINGS, n_jobs=1)
    assert len(mel_cache.load(table_of(plain, mended), tmp_path / "cache", "wild", SETTINGS)) == 1
    assert len(mel_cache.build(table_of(plain, mended), tmp_path / "cache", "wild", SETTINGS, n_jobs=1)) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


TRAIN = 'fname,labels\na.wav,Bark\nb.wav,"Bark,Run"\nc.wav,Tap\n'
SAMPLE = "fname,Bark,Run,Tap\nx.wav,0,0,0\ny.wav,0,0,0\n"


@pytest.fixture
def folder(tmp_path):
    """Data in Kaggle's layout, with empty audio files."""
    for name, fnames in [("train_curated", "abc"), ("test", "xy")]:
        (tmp_path / name).mkdir()
        for fname in fnames:
            (tmp_path / name / f"{fname}.wav").touch()
    (tmp_path / "train_curated.csv").write_text(TRAIN)
    (tmp_path / "sample_submission.csv").write_text(SAMPLE)
    return tmp_path


# Versions of train_curated.csv, or (train_curated.csv, sample_submission.csv), that mean the same.
SAME = {
    "as it should be": TRAIN,
    "Windows line ends": (TRAIN.replace("\n", "\r\n"), SAMPLE.replace("\n", "\r\n")),
    "old Macintosh line ends": TRAIN.replace("\n", "\r"),
    "byte-order marks": ("\ufeff" + TRAIN, "\ufeff" + SAMPLE),
    "spaces around names and labels": 'fname,labels\n a.wav ,Bark \nb.wav, "Bark,Run" \n\tc.wav, Tap\n',
    "spaces between labels": TRAIN.replace("Bark,Run", " Bark , Run "),
    "a label that is repeated": TRAIN.replace("Bark,Run", "Bark,Run,Bark"),
    "spaces in column names": (
        TRAIN.replace("fname,labels", " fname , labels "),
        SAMPLE.replace("Bark,Run", " Bark, Run "),
    ),
    "everything quoted": '"fname","labels"\n"a.wav","Bark"\n"b.wav","Bark,Run"\n"c.wav","Tap"\n',
    "another order of columns": (
        'labels,fname\nBark,a.wav\n"Bark,Run",b.wav\nTap,c.wav\n',
        "Bark,fname,Run,Tap\n0,x.wav,0,0\n0,y.wav,0,0\n",
    ),
    "another column": 'fname,licence,labels\na.wav,CC0,Bark\nb.wav,"BY, 3.0","Bark,Run"\nc.wav,,Tap\n',
    "blank lines": TRAIN.replace("\n", "\n\n") + ",\n  \n",
    "no line end at the end": (TRAIN.rstrip(), SAMPLE.rstrip()),
}
# Invalid versions, and the sentence that says so.
REJECTED = {
    "a clip twice": (TRAIN + "a.wav,Run\n", r"train_curated\.csv lists a\.wav more than once: keep one"),
    "a clip twice but for a space": (TRAIN + " a.wav,Run\n", r"train_curated\.csv lists a\.wav more than once"),
    "no label": (
        TRAIN.replace("Tap", ""),
        r"train_curated\.csv: c\.wav has an empty label: add the label or remove the row",
    ),
    "half a list": (TRAIN.replace("Bark,Run", "Bark,"), r"train_curated\.csv: b\.wav has an empty label"),
    "unknown label": (
        TRAIN.replace("Tap", "tap"),
        r"train_curated\.csv: c\.wav has the label 'tap', which is not one of the 3 classes: correct",
    ),
    "list without quotes": (
        TRAIN.replace('"', ""),
        r"train_curated\.csv, line 3: the row has 3 fields instead of 2: put quotes",
    ),
    "lists without quotes only": (
        "fname,labels\na.wav,Bark,Run\n",
        r"train_curated\.csv, line 2: the row has 3 fields instead of 2",
    ),
    "a row cut short": (TRAIN + "d.wav", r"train_curated\.csv, line 5: the row has 1 fields instead of 2"),
    "a quote not closed": (
        TRAIN.replace('Run"', "Run"),
        r"train_curated\.csv, line 3: a field has a quote that is not closed, or a line break: correct it",
    ),
    "a quote not closed in the sample": (
        (TRAIN, SAMPLE.replace("x.wav,0,0,0", 'x.wav,0,0,"0')),
        r"sample_submission\.csv, line 2: a field has a quote that is not closed",
    ),
    "two quotes not closed, which hide a row": (
        'fname,labels,title\na.wav,Bark,"12 inch\nb.wav,Run,plain\nc.wav,Tap,"loud\n',
        r"train_curated\.csv, line 2: a field has a quote that is not closed",
    ),
    "a field without end": (
        f'fname,labels\na.wav,"{200_000 * "x"}"\n',
        r"train_curated\.csv, line 2: the text is not CSV .*: correct it",
    ),
    "semicolons": (
        TRAIN.replace(",", ";"),
        r"train_curated\.csv has no column 'fname': its first line must name fname, labels",
    ),
    "an empty file": ("", r"train_curated\.csv has no column 'fname'"),
    "a column twice": (TRAIN.replace("labels", "labels,labels", 1), r"train_curated\.csv has two columns 'labels'"),
    "no clips": ("fname,labels\n", r"train_curated\.csv lists no clips: add a row for each"),
    "latin-1": (
        TRAIN.replace("Tap", "Klopfgeräusch").encode("latin-1"),
        r"train_curated\.csv, line 4: the text is not UTF-8: save",
    ),
    "UTF-16": (TRAIN.encode("utf-16"), r"train_curated\.csv, line 1: the text is not UTF-8: save"),
    "a name with ../": (
        TRAIN.replace("a.wav", "../x.wav"),
        r"train_curated\.csv lists '\.\./x\.wav', which is not a plain file name: correct the row",
    ),
    "a name with a folder": (
        TRAIN.replace("a.wav", "./a.wav"),
        r"train_curated\.csv lists '\./a\.wav', which is not a plain file name",
    ),
    "an absolute name": (
        TRAIN.replace("a.wav", "/etc/passwd"),
        r"train_curated\.csv lists '/etc/passwd', which is not a plain file name",
    ),
    "the folder above": (
        TRAIN.replace("a.wav", ".."),
        r"train_curated\.csv lists '\.\.', which is not a plain file name",
    ),
    "no name": (TRAIN.replace("a.wav", ""), r"train_curated\.csv lists '', which is not a plain file name"),
    "no test clips": ((TRAIN, "fname,Bark,Run,Tap\n"), r"sample_submission\.csv lists no clips"),
    "no class": ((TRAIN, "fname\nx.wav\ny.wav\n"), r"sample_submission\.csv names too few classes \(0,"),
    "one class": (
        (TRAIN, "fname,Bark\nx.wav,0\ny.wav,0\n"),
        r"sample_submission\.csv names too few classes \(1, .*: add the others",
    ),
    "a class twice": ((TRAIN, SAMPLE.replace("Run,", "Bark ,")), r"sample_submission\.csv has two columns 'Bark'"),
    "row numbers": (
        (TRAIN, pd.DataFrame({"fname": ["x.wav"], "Bark": 0}).to_csv()),
        r"sample_submission\.csv has a column without a name: remove",
    ),
    "a test name with ../": (
        (TRAIN, SAMPLE.replace("x.wav", "../a.wav")),
        r"sample_submission\.csv lists '\.\./a\.wav', which is not a plain",
    ),
}


def put(folder, tables):
    for name, text in zip(
        ("train_curated.csv", "sample_submission.csv"), tables if isinstance(tables, tuple) else (tables,)
    ):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("what", SAME)
def test_tables_that_mean_the_same_are_read_the_same(folder, what):
    put(folder, SAME[what])
    competition = data.Competition(folder)
    assert competition.classes == ["Bark", "Run", "Tap"]
    assert list(competition.curated["fname"]) == ["a.wav", "b.wav", "c.wav"]
    assert list(competition.curated["labels"]) == ["Bark", "Bark,Run", "Tap"]
    assert list(competition.test["fname"]) == ["x.wav", "y.wav"]
    if what == "another column":
        assert list(competition.curated["licence"]) == ["CC0", "BY, 3.0", ""]


@pytest.mark.parametrize("what", REJECTED)
def test_invalid_tables_are_rejected_in_one_sentence(folder, what):
    tables, sentence = REJECTED[what]
    put(folder, tables)
    with pytest.raises(ValueError, match=sentence) as caught:
        data.Competition(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_link_with_a_plain_name_is_a_clip(folder):
    (folder / "train_curated/a.wav").rename(folder / "elsewhere")
    (folder / "train_curated/a.wav").symlink_to(folder / "elsewhere")
    assert len(data.Competition(folder).curated) == 3


@pytest.mark.parametrize("listed", ["é.wav", "?.wav"])
def test_a_file_name_that_is_not_utf8_is_reported_when_clips_are_read(folder, listed):
    os.rename(folder / "train_curated/a.wav", os.fsencode(folder / "train_curated") + b"/\xe9.wav")
    (folder / "train_curated.csv").write_text(TRAIN.replace("a.wav", listed))
    with pytest.raises(
        ValueError, match=r"train_curated has 1 file names that are not UTF-8, such as b'\\xe9\.wav': rename"
    ):
        data.Competition(folder)
    fname = os.fsdecode(b"\xe9.wav")
    # Where pyarrow is installed, only such a column can hold the name.
    table = pd.DataFrame({"fname": [fname], "path": [str(folder / "train_curated" / fname)]}, dtype=object)
    with pytest.raises(ValueError, match="wild has 1 file names that are not UTF-8"):
        mel_cache.build(table, folder, "wild", SETTINGS)
