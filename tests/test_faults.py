"""Kills, full disks and two writers at once: nothing is lost, and nothing half-written is used."""

import errno
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from utils import files, models, train
from utils.config import TrainingConfig
from utils.run_folder import Run
from utils.workspace import ROOT

REMEDY = "free some space, close what has it open, or choose another folder. Existing files are unchanged."
BUILD = """
import resource, sys
from utils import mel_cache
from utils.config import QUICK
from utils.data import Competition
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
mel_cache.build(Competition(sys.argv[2]).curated.head(20), sys.argv[1], "curated", QUICK.mel, n_jobs=1)
"""


# tests/README.md states these numbers.
@pytest.mark.parametrize(("work", "at_least"), [("training", 19), ("caching", 24), ("submission", 8)])
def test_killed_at_any_point_and_rerun_it_ends_as_if_undisturbed(work, at_least, tmp_path):
    command = [sys.executable, "-m", "tests.faults", work, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1].removesuffix(" kill points")) >= at_least


def test_a_full_disk_gives_one_sentence_and_leaves_nothing(competition, tmp_path):
    command = [sys.executable, "-c", BUILD, str(tmp_path / "cache"), str(competition.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert "cannot be written" in said and REMEDY in said
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("whole, method", [(files.atomic_file, "replace"), (files.atomic_folder, "rename")])
def test_what_is_held_for_a_moment_as_by_a_virus_scanner_on_windows_is_moved(whole, method, tmp_path, monkeypatch):
    really, held = getattr(Path, method), [PermissionError(errno.EACCES, "in use")] * 2

    def move(self, other):
        if held:
            raise held.pop()
        return really(self, other)

    monkeypatch.setattr(Path, method, move)
    monkeypatch.setattr(files, "PAUSES", (0, 0))
    with whole(tmp_path / "target") as unfinished:
        if method == "replace":
            unfinished.touch()
    assert not held
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_read_only_disk_gives_one_sentence_and_keeps_existing_files(tmp_path):
    """In its own mount namespace, with the folder mounted on itself, read-only."""
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*alone, mount], capture_output=True).returncode:
        pytest.skip("this system does not allow mounts")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("old")
    (tmp_path / "file").write_text("old")
    code = """
import sys
from pathlib import Path
from utils import files
for whole, name in ((files.atomic_folder, "folder"), (files.atomic_file, "file"), (files.atomic_folder, "new")):
    try:
        with whole(Path(sys.argv[1], name)) as unfinished:
            unfinished.write_text("new")
            print("written")
    except OSError as error:
        print(error)
"""
    command = f"{mount} && exec {shlex.join([sys.executable, '-c', code, str(tmp_path)])}"
    said = subprocess.run(
        [*alone, command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    assert said == [
        f"{tmp_path / name} cannot be written (Read-only file system): {REMEDY}" for name in ("folder", "file", "new")
    ]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "inside"]
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "inside").read_text() == "old"


def write(whole, target, text, **options):
    """Write `text` with atomic_file or atomic_folder."""
    with whole(target, **options) as unfinished:
        (unfinished / "inside" if whole is files.atomic_folder else unfinished).write_text(text)


BOTH = pytest.mark.parametrize("whole", [files.atomic_folder, files.atomic_file])


@BOTH
def test_leftovers_of_a_killed_writer_block_nobody_and_are_removed_once_old(whole, tmp_path, monkeypatch):
    target, unique = tmp_path / "run", uuid4().hex
    for kind in ("part", "old"):
        (tmp_path / f"run.{unique}.{kind}").mkdir()
        (tmp_path / f"run.{unique}.{kind}" / "half").write_text("half")
    theirs = ("run.notes.part", f"run2.{unique}.part", f"my.run.{unique}.part", "run.1.old", "run.2024.part")
    others = [tmp_path / name for name in theirs]
    for other in others:
        other.touch()
    write(whole, target, "whole")
    assert len(list(tmp_path.iterdir())) == 1 + 2 + len(others)  # they may be in use
    monkeypatch.setattr(files, "ABANDONED_AFTER", -1)
    write(whole, target, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([target, *others])


def test_an_earlier_folder_that_a_killed_writer_moved_aside_is_kept_until_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ABANDONED_AFTER", -1)
    aside = tmp_path / f"run.{uuid4().hex}.old"
    aside.mkdir()
    with pytest.raises(KeyError), files.atomic_folder(tmp_path / "run"):
        raise KeyError
    assert list(tmp_path.iterdir()) == [aside]


@BOTH
def test_two_writers_of_one_name_and_process_id_do_not_collide(whole, tmp_path):
    """As on two machines with a shared folder."""
    target = tmp_path / "run"
    with whole(target) as first:
        write(whole, target, "second")
        assert first.parent == tmp_path
        (first / "inside" if first.is_dir() else first).write_text("first")
    assert sorted(tmp_path.iterdir()) == [target]
    # A folder is kept from the first to finish, a file from the last.
    assert (target / "inside" if target.is_dir() else target).read_text() == ("second" if target.is_dir() else "first")


def test_an_earlier_folder_is_restored_if_the_new_one_cannot_replace_it(tmp_path, monkeypatch):
    target, rename = tmp_path / "run", Path.rename
    write(files.atomic_folder, target, "earlier")

    def fails(path, to):
        if path.suffix == ".part":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match=r"run cannot be written .Permission denied.*Existing files are unchanged"):
        write(files.atomic_folder, target, "new", replace=True)
    assert (target / "inside").read_text() == "earlier"
    monkeypatch.undo()
    write(files.atomic_folder, target, "new", replace=True)
    assert (target / "inside").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@BOTH
def test_files_are_synced_as_windows_requires(whole, tmp_path, monkeypatch):
    """Windows cannot open a folder or sync a file that is open read-only."""
    fcntl = pytest.importorskip("fcntl")
    synced, opened = [], os.open

    def windows_open(path, flags, *arguments, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *arguments, **options)

    def windows_fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced.append(descriptor)

    with monkeypatch.context() as windows:
        windows.setattr(os, "open", windows_open)
        windows.setattr(os, "fsync", windows_fsync)
        write(whole, tmp_path / "run", "whole")
    assert synced
    assert (tmp_path / "run").exists()


def test_a_full_disk_stops_training_in_one_sentence_and_keeps_the_earlier_run(sets, tmp_path, monkeypatch):
    config = TrainingConfig(epochs=1, batch_size=96)
    earlier = train.fit(models.DeepCNN(12, width=2, stem=2), *sets, config, tmp_path / "run", "Deep CNN").scores

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"run\.checkpoint cannot be written .No space left on device.: free some space"):
        train.fit(models.DeepCNN(12, width=2, stem=2), *sets, replace(config, seed=1), tmp_path / "run", "Deep CNN")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert np.array_equal(Run(tmp_path / "run").scores, earlier)
