"""Kills, full disks and two at once: nothing is lost, nothing half-written is taken for whole."""

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils import files, mel, models, train
from utils.config import QUICK, TrainingConfig
from utils.dataset import load_split
from utils.run_folder import Run
from utils.workspace import ROOT

BUILD = """
import resource, sys
from pathlib import Path
from utils import mel
from utils.config import QUICK
from utils.data import Competition
folder, data, largest_file = sys.argv[1], sys.argv[2], int(sys.argv[3])
if largest_file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
print(mel.build_cache(Competition(data).curated.head(20), folder, "curated", QUICK.mel, n_jobs=1).folder)
"""


def build(folder, competition, largest_file=0):
    command = [sys.executable, "-c", BUILD, str(folder), str(competition.folder), str(largest_file)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("work", "at_least"), [("training", 15), ("caching", 20), ("submission", 5)])
def test_killed_at_any_moment_and_started_again_it_ends_as_if_undisturbed(work, at_least, tmp_path):
    command = [sys.executable, "-m", "tests.faults", work, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1].removesuffix(" kill points")) >= at_least


def test_a_full_disk_is_one_sentence_and_leaves_what_stood(competition, tmp_path):
    process = build(tmp_path / "cache", competition, largest_file=100_000)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "cannot be written" in said.splitlines()[-1]
    assert "free some space, or name another folder with FAT_WORK. What stood there still does." in said.splitlines()[-1]
    assert not list((tmp_path / "cache").iterdir())
    for whole in (files.atomic_folder, files.atomic_file):
        target = tmp_path / whole.__name__
        target.mkdir() if whole is files.atomic_folder else target.write_text("stood")
        with pytest.raises(OSError, match=f"{target} cannot be written .Read-only file system.: free some space"), whole(target):
            raise OSError(errno.EROFS, "Read-only file system")
        assert target.exists()
        assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_stops_a_training_in_one_sentence_and_leaves_the_earlier_run(competition, cache, tmp_path, monkeypatch):
    clips = load_split(cache, competition.curated, competition.classes, QUICK, "cpu")
    config = TrainingConfig(epochs=1, batch_size=96)
    earlier = train.fit(models.DeepCNN(12, width=2, stem=2), *clips, config, tmp_path / "run", "Deep CNN").scores

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"run\.checkpoint cannot be written .No space left on device.: free some space"):
        train.fit(models.DeepCNN(12, width=2, stem=2), *clips, replace(config, seed=1), tmp_path / "run", "Deep CNN")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert np.array_equal(Run(tmp_path / "run").scores, earlier)


def test_two_processes_that_build_the_same_cache_do_not_harm_each_other(competition, tmp_path):
    both = [build(tmp_path, competition) for _ in range(2)]
    folders = {process.communicate()[0].splitlines()[-1] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1
    assert [folder.name for folder in tmp_path.iterdir()] == [
        mel.load_cache(competition.curated.head(20), tmp_path, "curated", QUICK.mel).folder.name
    ]
