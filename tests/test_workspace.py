from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import soundfile
import torch

from utils import config, mel_cache, own, run, setup, workspace


def test_without_data_the_mini_set_is_made_and_announced(competition, monkeypatch, capsys):
    monkeypatch.delenv("FAT_DATA")
    monkeypatch.setattr(workspace, "find_data", lambda: None)
    kit = setup()
    printed = capsys.readouterr().out
    assert kit.competition.folder == competition.folder
    assert "No competition data was found, so this is the mini set" in printed
    assert "preset   quick" in printed


@pytest.mark.parametrize("device, preset", [("cpu", "quick"), ("cuda", "full")])
def test_the_default_preset_is_full_on_a_gpu(device, preset, monkeypatch):
    monkeypatch.delenv("FAT_PRESET")
    monkeypatch.setattr(workspace, "find_device", lambda: (device, "a device"))
    assert setup().preset.name == preset


def test_environment_and_parameters_are_used(competition, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FAT_WORK", str(tmp_path))
    monkeypatch.setenv("FAT_DROP_UNREADABLE", "1")
    kit = setup(preset="full")
    assert kit.folder == tmp_path
    assert kit.preset == replace(config.FULL, drop_unreadable=True)
    monkeypatch.setenv("FAT_DROP_UNREADABLE", "")
    assert setup(preset="full").preset == config.FULL
    assert kit.run_folder("deep_cnn") == kit.runs / "deep_cnn-full"
    assert kit.competition.folder == competition.folder
    assert "No competition data" not in capsys.readouterr().out


def test_runs_from_before_a_dataset_was_made_anew_are_not_found(tmp_path):
    """They may have been trained on clips that are test clips now."""
    sounds, target = tmp_path / "sounds", tmp_path / "target"

    def write(first: int) -> None:
        for number in range(10):
            for label in ("Bark", "Purr"):
                (sounds / label).mkdir(parents=True, exist_ok=True)
                soundfile.write(sounds / label / f"{number}.wav", [(first + number) / 40, label == "Bark"], 8000)

    write(first=0)
    folders = [setup(str(own.make_dataset(sounds, target, replace=True))).runs for _ in range(2)]
    (sounds / "Bark" / "9.wav").unlink()
    folders.append(setup(str(own.make_dataset(sounds, target, replace=True))).runs)
    write(first=1)  # the same names for other sounds, most of which were training clips
    folders.append(setup(str(own.make_dataset(sounds, target, replace=True))).runs)
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3
    test_clip = Path(setup(str(target)).competition.test["path"][0])
    test_clip.unlink()
    soundfile.write(test_clip, [0.1, 0.2], 8000)  # another sound of the same name and size
    folders.append(setup(str(target)).runs)
    test_clip.unlink()
    test_clip.symlink_to("nowhere")
    assert len(set(folders)) == 4
    with pytest.raises(OSError, match=rf"{test_clip.name} cannot be opened: restore it"):
        _ = setup(str(target)).runs


def test_a_named_folder_is_never_replaced_by_the_mini_set(monkeypatch, tmp_path):
    monkeypatch.setenv("FAT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"neither train_curated\.csv"):
        setup()
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        setup(str(tmp_path / "nowhere"))


def test_an_unknown_preset_is_rejected(competition):
    with pytest.raises(ValueError, match="the preset 'fast' is not one of full, quick"):
        setup(preset="fast")


@pytest.mark.parametrize(("error", "said"), [
    ("no kernel image is available", "this torch has no kernels for the Tesla P100: choose another accelerator"),
    ("out of memory.\nFree some", "the Tesla P100 cannot be used: out of memory."),
])  # fmt: skip
def test_a_gpu_that_cannot_compute_is_reported_and_not_used(competition, monkeypatch, capsys, error, said):
    def no_kernels(*_, **__):
        raise RuntimeError(error)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla P100")
    monkeypatch.setattr(torch, "ones", no_kernels)
    assert setup().device == "cpu"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "place", ["freesound-audio-tagging-2019", "competitions/freesound-audio-tagging-2019", "a/b/c", "a/b/c/d"]
)
def test_kaggles_mounts_are_found_before_a_local_folder(competition, monkeypatch, tmp_path, place):
    for path in (tmp_path / "input" / place, tmp_path / "kit/data/x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(competition.folder)
    monkeypatch.setattr(workspace, "ROOT", tmp_path / "kit")
    assert workspace.find_data() == tmp_path / "kit/data/x"
    monkeypatch.setattr(config, "KAGGLE_INPUT", tmp_path / "input")
    assert workspace.find_data() == tmp_path / "input" / place


def test_a_link_to_data_keeps_its_name_however_it_is_found(competition, monkeypatch, tmp_path):
    (tmp_path / "data").symlink_to(competition.folder)
    monkeypatch.setattr(workspace, "ROOT", tmp_path)
    monkeypatch.delenv("FAT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert setup().runs == setup("data").runs


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Return a function that writes a notebook, of a code cell per source, where the runner looks for it."""
    monkeypatch.setattr(run, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("FAT_WORK", str(tmp_path / "work"))  # and restored afterwards, though the runner sets it, too

    def write(name, *sources, tags=()):
        cells = [nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")

    return write


def test_the_runner_shows_the_error_and_where_its_traceback_is(notebook, tmp_path, capfd):
    notebook("01_fails", "print('fine')", "what = 1 / 0")
    assert run.main([]) == 1
    printed = capfd.readouterr().err
    assert printed.endswith("the same command resumes\n\nZeroDivisionError: division by zero\n")
    copy = tmp_path / "work/notebooks/01_fails.ipynb"
    assert f"01_fails stopped; its output, with the traceback, is in {copy}" in printed
    [error] = nbformat.read(copy, as_version=4).cells[1].outputs
    assert "what = " in "".join(error["traceback"])


def test_relative_folders_are_resolved_first(notebook, tmp_path, monkeypatch, capfd):
    notebook("01_x", "import os; print(*(os.environ[f'FAT_{x}'] for x in ('DATA', 'WORK')))", tags=["results"])
    notebook("02_y", "1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAT_DATA", "elsewhere")
    assert run.main(["--work", "out", "01"]) == 0  # the second is not asked for
    assert f"{tmp_path / 'elsewhere'} {tmp_path / 'out'}\n" in capfd.readouterr().out
    assert (tmp_path / "out/notebooks/01_x.ipynb").is_file()


def test_the_runner_ends_with_unreadable_and_damaged_clips(competition, notebook, tmp_path, capfd):
    table = competition.curated.head(20)[["fname", "path"]]
    paths, cut = table["path"].copy(), tmp_path / "cut.wav"
    for row in range(12):
        (tmp_path / f"{row}.wav").write_text("no audio")
        paths[row] = str(tmp_path / f"{row}.wav")
    cut.write_bytes(Path(table["path"][15]).read_bytes()[:4000])
    paths[15] = str(cut)
    table.assign(path=paths).to_json(tmp_path / "table.json")
    other = table.head(13).assign(path=paths)  # a cache that no notebook uses
    mel_cache.build(other, tmp_path / "work/cache", "other", config.MelConfig(), n_jobs=1)
    source = f"""
import sys; sys.path.append({str(workspace.ROOT)!r})
import pandas as pd
from utils import config, mel_cache
table = pd.read_json({str(tmp_path / "table.json")!r}, dtype=str)
mel_cache.build(table, {str(tmp_path / "work/cache")!r}, "curated", config.MelConfig(), n_jobs=1)"""
    for name in ("01_a", "02_b"):
        notebook(name, source)
    capfd.readouterr()
    assert run.main(["--work", str(tmp_path / "work")]) == 0
    end = capfd.readouterr().out.splitlines()[-14:]
    assert end[0].startswith("WARNING curated: 12 of 20 clips cannot be read and are left out, see ")
    listed = pd.read_csv(end[0].split(", see ")[1])
    assert list(listed["fname"]) == list(table["fname"][:12])
    assert [line.split()[0] for line in end[1:11]] == list(table["fname"][:10])
    damaged = Path(end[0].split(", see ")[1]).with_name("damaged.csv")
    assert end[11] == "  and 2 more"
    assert end[12].startswith("WARNING curated: 1 of 20 clips are damaged and used as far as they go, see ")
    assert end[12].endswith(str(damaged))
    assert end[13].startswith(f"  {table['fname'][15]} breaks off after ")


def test_outputs_of_other_data_are_never_stored_in_the_notebooks(competition, monkeypatch, refused):
    assert "--inplace stores outputs of the mini set" in refused(run.main, "01", "--inplace")  # FAT_DATA is set
    monkeypatch.delenv("FAT_DATA")
    monkeypatch.setattr(run, "find_data", lambda: None)
    assert "unset FAT_WORK" in refused(run.main, "01", "--inplace")  # FAT_WORK is set, too


def test_the_runner_rejects_unknown_notebooks(refused):
    assert "there is no notebook 99; there are 01_eda, 02_preprocessing" in refused(run.main, "99")


def test_the_notebooks_of_the_kit_are_never_overwritten_by_executed_ones(notebook, tmp_path, refused):
    notebook("01_x")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/notebooks").symlink_to(tmp_path)
    assert "the work folder is the kit's own, whose notebooks would be overwritten" in refused(run.main, "01")
