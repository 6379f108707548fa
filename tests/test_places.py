"""Run the notebooks where people run them: places simulated in temporary folders without a network.

The kit is copied there, with `/kaggle` and `/content` replaced by folders of the test, and with tiny models that train
for two steps. On today's Kaggle, all notebooks run completely; elsewhere, only what differs.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from utils import data, kaggle, setup
from utils.workspace import ROOT

COMPETITION = kaggle.COMPETITION
REPOSITORY = r"https://github\.com/[^/\"]+/freesound-tagging-kit\b"
OPENING = 3  # code cells, up to setup()
NO_NETWORK = """
import socket
connect = socket.socket.connect
def only_here(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "localhost", "::1"):
        raise OSError("there is no network in this test")
    return connect(self, address)
socket.socket.connect = only_here
"""
TINY_MODELS = """
for _name, _entry in list(MODELS.items()):
    MODELS[_name + " as it is"] = _entry  # notebook 5 shows what these cost
    _config = replace(_entry.config("quick"), max_steps=2)
    _options = {"width": 2, "stem": 2, "residual": True}
    MODELS[_name] = replace(_entry, network=DeepCNN, presets=dict.fromkeys(("quick", "full"), (_options, _config)))
"""


class Place:
    """A simulated machine: folders for /kaggle and /content, a kit, and the notebooks."""

    def __init__(self, root: Path, competition: data.Competition) -> None:
        self.root, self.competition = root, competition
        self.input, self.working, self.content = root / "kaggle/input", root / "kaggle/working", root / "content"
        (root / "nowhere").mkdir(parents=True)
        (root / "nowhere" / "sitecustomize.py").write_text(NO_NETWORK)
        kaggle.write(root / "bundle", "someone")
        self.kit = root / "bundle" / "kit"
        config = self.kit / "utils/config.py"
        config.write_text(self.here(config.read_text()))
        with open(self.kit / "utils/models.py", "a") as models:
            models.write(TINY_MODELS)

    def here(self, text: str) -> str:
        for folder in ("/kaggle", "/content"):
            text = text.replace(f'"{folder}', f'"{self.root}{folder}')
        return re.sub(REPOSITORY, str(self.root / "published" / "freesound-tagging-kit"), text)

    def put_data(self, folder: Path, curated_clips: int = 36, test_clips: slice = slice(0, 8)) -> None:
        """Write three clips of each class, and eight test clips, in Kaggle's layout."""
        curated = self.competition.curated
        few = curated.groupby(curated["labels"].str.split(",").str[0]).head(3)
        test = curated.drop(few.index).iloc[test_clips]
        few = few.head(curated_clips)
        for name, table in (("train_curated", few), ("test", test)):
            (folder / name).mkdir(parents=True)
            for path in table["path"]:
                shutil.copy(path, folder / name)
            table[["fname", "labels"]].to_csv(folder / f"{name}.csv", index=False)
        test[["fname"]].assign(**dict.fromkeys(self.competition.classes, 0)).to_csv(
            folder / "sample_submission.csv", index=False
        )

    def put_zenodo(self, folder: Path) -> None:
        """Write the same in Zenodo's layout, with the labels of the test clips."""
        self.put_data(folder)
        meta = folder / data.ZENODO_META
        meta.mkdir()
        test = pd.read_csv(folder / "test.csv").assign(usage=["Public", "Private"] * 4)
        test.to_csv(meta / "test_post_competition.csv", index=False)
        (folder / "train_curated.csv").rename(meta / "train_curated_post_competition.csv")
        pd.Series(self.competition.classes).to_csv(meta / "vocabulary.csv", header=False)
        for name in ("train_curated", "test"):
            (folder / name).rename(folder / f"FSDKaggle2019.audio_{name}")
        (folder / "sample_submission.csv").unlink()
        (folder / "test.csv").unlink()

    def open(self, notebook: str, folder: Path, source: Path | None = None, cells: int | None = None) -> str:
        """Run a notebook, or its first code cells, in `folder` and return what it showed.

        `source`: the notebook's folder; if None, the repository's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = (source or ROOT / "notebooks") / f"{notebook}.ipynb"
        content = nbformat.reads(self.here(file.read_text()), as_version=4)
        content.cells = [cell for cell in content.cells if cell.cell_type == "code"][:cells]
        env = {name: value for name, value in os.environ.items() if not name.startswith("FAT_")}
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # a kit on it would hide that a notebook finds none
        env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path and Path(path).resolve() != ROOT)
        env |= {"PYTHONDONTWRITEBYTECODE": "1"}  # as on a read-only disk
        env |= {"MPLBACKEND": "Agg"}  # as on many CI services; the notebook still has its figures
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(content, kernel_name="python3", timeout=600, resources=resources).execute(env=env)
        outputs = [output for cell in content.cells for output in cell.outputs]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        assert cells or [output for output in outputs if "image/png" in output.get("data", {})]
        return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def listing(folder: Path) -> set:
    return {(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in folder.rglob("*")}


@pytest.fixture
def place(tmp_path, competition):
    return Place(tmp_path / "root", competition)


def test_on_kaggle_each_notebook_reads_the_output_of_earlier_ones(place):
    """Today's mounts, an empty working folder each time, and only what kernel-metadata.json attaches.

    Most clips are gone from the table when the evaluation looks for the worst ones, and the submission is for the
    second stage, whose test clips preprocessing has not seen.
    """
    ended = place.root / "ended"
    ended.mkdir()
    for notebook, reads in kaggle.READS.items():
        shutil.rmtree(place.root / "kaggle", ignore_errors=True)
        changes = {"07_evaluation": {"curated_clips": 12}, "08_submission": {"test_clips": slice(8, 15)}}
        changed = changes.get(notebook, {})
        place.put_data(place.input / "competitions" / COMPETITION, **changed)
        shutil.copytree(place.kit, place.input / "datasets/someone/freesound-tagging-kit")
        for read in reads:
            shutil.copytree(ended / read, place.input / "notebooks/someone" / kaggle.kernel_id("", read).strip("/"))
        before = listing(place.input)
        printed = place.open(notebook, place.working, place.root / "bundle" / notebook)
        assert listing(place.input) == before
        curated = changed.get("curated_clips", 36)
        assert f"data     {place.input}/competitions/{COMPETITION}: 12 classes; {curated} curated" in printed
        place.working.rename(ended / notebook)
    assert pd.read_csv(ended / "08_submission" / "submission.csv").shape == (7, 13)


def test_on_kaggle_earlier_mounts_are_found(place):
    shutil.copytree(place.kit, place.input / "freesound-tagging-kit")
    place.put_data(place.input / COMPETITION)
    printed = place.open("01_eda", place.working, cells=OPENING)
    assert f"data     {place.input / COMPETITION}: 12 classes; 36 curated" in printed


def test_on_colab_a_notebook_fetches_the_kit_and_the_next_one_finds_it(place):
    with pytest.raises(CellExecutionError, match="returned non-zero exit status"):  # no network
        place.open("01_eda", place.content, cells=OPENING)
    published = shutil.copytree(place.kit, place.root / "published" / "freesound-tagging-kit")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "kit"],
    ):
        subprocess.run(["git", *command], cwd=published, check=True)
    printed = place.open("01_eda", place.content, cells=OPENING + 1)
    assert "this is the mini set" in printed
    shutil.rmtree(published)
    assert "12 classes" in place.open("02_preprocessing", place.content, cells=OPENING + 1)
    assert [file.name for file in place.content.iterdir()] == ["freesound-tagging-kit"]


def test_with_zenodos_data_the_leaderboard_is_computed_locally(place):
    clone = shutil.copytree(place.kit, place.root / "clone")
    place.put_zenodo(clone / "data")
    before = listing(clone / "data")
    for folder in (clone, clone / "work/notebooks"):  # where others start kernels, and where executed notebooks are
        assert "data     data: 12 classes; 36 curated" in place.open("01_eda", folder, cells=OPENING)
    for notebook in ("02_preprocessing", "03_cnn", "08_submission"):
        printed = place.open(notebook, clone / "notebooks")
        assert "data     data: 12 classes; 36 curated" in printed
    assert "Private" in printed
    assert listing(clone / "data") == before
    place.put_data(place.root / "from_kaggle")  # with its notebooks, these runs can be submitted
    [runs] = (clone / "work/runs").iterdir()
    kit = setup(str(place.root / "from_kaggle"))
    assert runs.name.removeprefix("data-") == kit.runs.name.removeprefix("from_kaggle-")


def test_the_kernel_folders_have_the_documented_fields(tmp_path):
    commands = kaggle.write(tmp_path / "to", "someone")
    assert [command.split()[1] for command in commands] == ["datasets"] + len(kaggle.READS) * ["kernels"]
    assert set(kaggle.READS) == {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")}
    opening = (tmp_path / "to/01_eda/01_eda.ipynb").read_text()
    assert "/kaggle/input/datasets/someone/freesound-tagging-kit" in opening
    assert "/kaggle/input/datasets/OWNER" not in opening
    made = {name: json.loads((tmp_path / "to" / name / "kernel-metadata.json").read_text()) for name in kaggle.READS}
    assert [name for name, metadata in made.items() if metadata["enable_internet"]] == ["04_vgg19", "09_explanation"]
    pushed = []
    for name, metadata in made.items():
        assert metadata["id"] == "someone/" + metadata["title"].lower().replace(" ", "-")
        assert (metadata["language"], metadata["kernel_type"]) == ("python", "notebook")
        assert (tmp_path / "to" / name / metadata["code_file"]).is_file()
        assert metadata["enable_gpu"] == ("machine_shape" in metadata) == (name not in kaggle.ON_CPU)
        assert metadata["dataset_sources"] == ["someone/freesound-tagging-kit"]
        assert metadata["competition_sources"] == ["freesound-audio-tagging-2019"]
        assert metadata["kernel_sources"] == [made[read]["id"] for read in kaggle.READS[name]]
        assert set(metadata["kernel_sources"]) <= set(pushed)  # each is pushed before it is read
        pushed.append(metadata["id"])


def test_the_pushes_of_a_submission_are_printed_first(tmp_path, capsys):
    kaggle.main(["someone", "--to", str(tmp_path / "to")])
    commands = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("kaggle ")]
    pushed = [Path(words[-1]).name for words in commands if words[1:3] == ["kernels", "push"]]
    assert pushed[:3] == ["02_preprocessing", "06_beyond_the_paper", "08_submission"]
    assert sorted(pushed) == list(kaggle.READS)
    asked = [words[-1] for words in commands if words[1:3] == ["kernels", "status"]]
    assert asked == [kaggle.kernel_id("someone", name) for name in pushed[:3]]


def test_only_a_folder_that_was_written_for_kaggle_is_replaced(tmp_path, monkeypatch, refused):
    (tmp_path / "precious.txt").write_text("thesis")
    monkeypatch.chdir(tmp_path)
    for mine in (Path("."), tmp_path / "precious.txt"):
        with pytest.raises(
            FileExistsError, match=r"was not written by utils\.kaggle: remove it, or name a new or empty folder"
        ):
            kaggle.write(mine, "someone")
    assert refused(kaggle.main, "someone", "--to", ".").startswith(". was not written by utils.kaggle")
    assert "'Your Name' is no username" in refused(kaggle.main, "Your Name")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["thesis"]
    (tmp_path / "empty").mkdir()
    runs = tmp_path / "empty/kit/runs/data-1a2b3c"
    for user in ("one", "two"):
        kaggle.write(tmp_path / "empty", user)
        assert f'"{user}/' in (tmp_path / "empty/kit/dataset-metadata.json").read_text()
        assert runs.is_dir() == (user == "two")  # what notebook 8 says to copy there stays
        runs.mkdir(parents=True, exist_ok=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "precious.txt"]
