"""`setup()`, the first call of every notebook: finds the data, preset, device and output folders."""

import hashlib
import os
import platform
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from . import files, mini
from .config import KAGGLE_WORKING, PRESETS, Preset, attached
from .data import LAYOUT_MARKERS, TEST_LABELS, Competition, content_keys

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Workspace:
    """What `setup()` found: the data and its tables, the preset, the device and the output folders."""

    competition: Competition
    preset: Preset
    device: str
    folder: Path
    submissions: Path

    @property
    def cache(self) -> Path:
        """Folder of the caches."""
        return self.folder / "cache"

    @cached_property
    def runs(self) -> Path:
        """Folder of the runs on this data, separate for each set of classes and of test clips in test_labels.csv.

        If a dataset is made anew, some of its test clips may have been in the training set of an earlier run. Their
        content counts, too: the same names may be those of other sounds now. The competition's test clips stay the
        same, so runs on Zenodo's release are found on Kaggle. Raises OSError if one in test_labels.csv cannot be
        opened.
        """
        test, labeled = self.competition.test, []
        if (self.competition.folder / TEST_LABELS).is_file():
            keys = content_keys(test["path"])
            if None in keys:
                raise OSError(f"The test clip {test['path'][keys.index(None)]} cannot be opened: restore it.")
            labeled = [":".join(clip) for clip in zip(test["fname"], test["labels"], keys)]
        key = hashlib.sha256(",".join(self.competition.classes + labeled).encode()).hexdigest()[:6]
        return self.folder / "runs" / f"{self.competition.folder.name}-{key}"

    def run_folder(self, model: str) -> Path:
        """Return the folder of this model's run; `model` is its name in the table of models."""
        return self.runs / f"{model}-{self.preset.name}"


def setup(data_folder: str | None = None, preset: str | None = None) -> Workspace:
    """Find the data, choose preset and device, make the work folder, and print a summary.

    `data_folder`: a folder in Kaggle's or Zenodo's layout; if None, FAT_DATA; if unset, Kaggle's input or `data/`
    beside the notebooks; if there is none, the mini set. `preset`: "full" or "quick"; if None, FAT_PRESET; if unset,
    "full" on a GPU, else "quick". FAT_WORK is the folder for artifacts; FAT stands for Freesound Audio Tagging. With
    FAT_DROP_UNREADABLE=1, training clips that cannot be read are left out instead of stopping the training. Makes
    pandas show three decimals. Raises FileNotFoundError or ValueError if the folder or preset is not valid.
    """
    folder = work_folder()
    with files.explain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    named = data_folder or os.environ.get("FAT_DATA")
    found = Path(os.path.abspath(Path(named).expanduser())) if named else find_data()  # a link keeps its name
    competition = Competition(found or mini.make_mini_set(folder / mini.NAME))
    device, remark = find_device()
    name = preset or os.environ.get("FAT_PRESET") or ("quick" if device == "cpu" else "full")
    if name not in PRESETS:
        raise ValueError(
            f"the preset {name!r} is not one of {', '.join(PRESETS)}: set the parameter or FAT_PRESET to one of them."
        )
    chosen = PRESETS[name]
    if os.environ.get("FAT_DROP_UNREADABLE") == "1":
        chosen = replace(chosen, drop_unreadable=True)
    pd.set_option("display.precision", 3)
    submissions = submissions_folder()
    print(f"data     {short_path(competition.folder)}: {competition}")
    if not found:
        print("         No competition data was found, so this is the mini set of synthetic demo data.")
        print("         For other data, name a folder with train_curated.csv: data_folder here, --data in a shell.")
    print(f"preset   {name}")
    print(
        f"device   {remark}; python {platform.python_version()}, torch {version('torch')}, librosa {version('librosa')}"
    )
    print(f"folders  {short_path(folder)} and {short_path(submissions)}")
    return Workspace(competition, chosen, device, folder, submissions)


def work_folder() -> Path:
    """Return FAT_WORK; else /kaggle/working on Kaggle, else `work/` in the kit."""
    default = KAGGLE_WORKING if KAGGLE_WORKING.is_dir() else ROOT / "work"
    return Path(os.environ.get("FAT_WORK") or default).expanduser().resolve()


def submissions_folder() -> Path:
    """Return the folder for submissions.

    FAT_SUBMISSIONS; else `submissions/` in the kit, or in the work folder on Kaggle and where the kit is read-only.
    """
    in_kit = os.access(ROOT, os.W_OK) and not KAGGLE_WORKING.is_dir()
    default = (ROOT if in_kit else work_folder()) / "submissions"
    return Path(os.environ.get("FAT_SUBMISSIONS") or default).expanduser().resolve()


def find_data() -> Path | None:
    """Return the first folder in either layout in Kaggle's inputs, or `data/` in the kit or a folder in it."""
    local = [ROOT / "data", *sorted((ROOT / "data").glob("*/"))]
    places = [mark.parent for name in LAYOUT_MARKERS for mark in attached(name)] + local
    return next((place for place in places if any((place / name).exists() for name in LAYOUT_MARKERS)), None)


def find_device() -> tuple[str, str]:
    """Return "cuda" or "cpu", and a description. A GPU that is listed but cannot compute is not used."""
    import torch

    threads = device_name("cpu")
    if not torch.cuda.is_available():
        return "cpu", threads
    name = device_name("cuda")
    try:
        torch.ones(1, device="cuda").add_(1).item()
    except RuntimeError as error:
        first_line = str(error).partition("\n")[0]
        reason = f"the {name} cannot be used: {first_line}"
        if "no kernel image" in reason:
            reason = f"this torch has no kernels for the {name}: choose another accelerator"
        return "cpu", f"{threads} ({reason})"
    return "cuda", name


def device_name(kind: str) -> str:
    """Return the name of the GPU ("cuda"), or the CPU's threads."""
    import torch

    n_threads = torch.get_num_threads()
    return torch.cuda.get_device_name() if kind == "cuda" else f"CPU, {n_threads} thread{'s' * (n_threads > 1)}"


@contextmanager
def errors_in_one_sentence(parser: ArgumentParser) -> Iterator[None]:
    """End a command with the message of an expected error, without a traceback."""
    if hasattr(sys.stdout, "reconfigure"):  # not every console has the letters of every file name; a notebook's has
        sys.stdout.reconfigure(errors="replace")
    try:
        yield
    except KeyboardInterrupt:
        parser.exit(1, "\nStopped.\n")
    except (OSError, ValueError, ImportError, FloatingPointError, MemoryError) as error:
        parser.exit(1, f"{error}\n")


def quoted(path: str | Path) -> str:
    """Return `path` as a shell needs it to be typed."""
    return f'"{Path(path)}"' if os.name == "nt" else shlex.quote(str(path))


def short_path(path: Path) -> str:
    """Return `path`, relative to the kit's folder if it lies in it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
