"""Kill a process at every point that matters and check what is left: FAT_DATA=DIR python -m tests.faults WORK FOLDER

WORK is training, caching or submission. A point is a file sync, a rename, an optimizer step or the loading of a clip.
At each, a child process is killed (SIGKILL), another one completes its work, and what they leave is checked. Prints
the number of points.
"""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch._dynamo  # torch imports it at an optimizer's first step: once here, not in every child

from utils import checkpoint, mel, mel_cache, models, submission, train
from utils.config import QUICK, TrainingConfig
from utils.data import Competition
from utils.dataset import load_split
from utils.run_folder import Run

if "FAT_DATA" not in os.environ:
    sys.exit(__doc__)
COMPETITION = Competition(os.environ["FAT_DATA"])
TABLE = COMPETITION.curated.head(20)
CONFIG = TrainingConfig(3, batch_size=8, crop="random", optimizer="muon", schedule="cosine", mix_probability=0.5)


def child(work: Callable[[], object], kill_at: int = 0) -> tuple[bool, int]:
    """Run `work` in a child, killed at point `kill_at`; return whether it was killed, and its optimizer steps else."""
    if process := os.fork():
        _, status = os.waitpid(process, 0)
        assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL, status
        assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) < 100, "the work failed"
        return os.WIFSIGNALED(status), os.WEXITSTATUS(status)
    points = steps = 0

    def counted(function: Callable) -> Callable:
        def wrapper(*arguments, **options) -> object:
            nonlocal points, steps
            points += 1
            steps += function is adam
            if points == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapper

    adam = torch.optim.AdamW.step
    torch.optim.AdamW.step = counted(adam)
    os.fsync, os.rename, os.replace, mel_cache.load_clip_and_damage = map(
        counted, (os.fsync, os.rename, os.replace, mel_cache.load_clip_and_damage)
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            work()
        os._exit(steps)
    finally:
        os._exit(100)


def every_point(work: Callable[[Path], object], folder: Path, compare: Callable[[Path, Path, int], None]) -> int:
    """Kill `work` at each point, rerun it and `compare` it with an undisturbed run; return the number of points."""
    whole = folder / "whole"
    child(lambda: work(whole))
    point = 1
    while child(partial(work, folder / str(point)), kill_at=point)[0]:
        _, steps = child(partial(work, folder / str(point)))
        compare(folder / str(point), whole, steps)
        point += 1
    return point - 1


def same_files(folder: Path, whole: Path, names: list[str]) -> None:
    for name in names:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), f"{folder / name} differs"


def training(folder: Path) -> int:
    torch.set_num_threads(1)
    cache = mel_cache.build(TABLE, folder, "curated", QUICK.mel, n_jobs=1)
    sets = load_split(cache, TABLE, COMPETITION.classes, QUICK, "cpu")
    torch.manual_seed(0)
    model, taken = models.DeepCNN(len(COMPETITION.classes), width=2, stem=2), []

    def compare(work: Path, whole: Path, steps: int) -> None:
        taken.append(steps)
        names = ["weights.safetensors", "history.csv", "train_clips.csv", "validation_scores.csv"]
        same_files(work / "run", whole / "run", names)
        assert Run(work / "run").models() and not list(work.glob("*.checkpoint"))

    checkpoint.time = SimpleNamespace(perf_counter=lambda: 0.0)  # it is saved after every epoch, however slow the disk
    count = every_point(lambda work: train.fit(model, *sets, CONFIG, work / "run", "Deep CNN"), folder, compare)
    assert taken[0] == 6 and taken[-1] == 0, taken  # killed at the start, it repeats all; at the end, nothing
    assert taken == sorted(taken, reverse=True)
    return count


def caching(folder: Path) -> int:
    def compare(work: Path, whole: Path, steps: int) -> None:
        made, expected = (mel_cache.load(TABLE, place, "curated", QUICK.mel) for place in (work, whole))
        same_files(made.folder, expected.folder, ["frames.npy", "clips.csv", "settings.json"])

    mel.clip_to_log_mel(TABLE["path"][0], QUICK.mel)  # children inherit what it imports and computes once
    return every_point(lambda work: mel_cache.build(TABLE, work, "curated", QUICK.mel, n_jobs=1), folder, compare)


def submitting(folder: Path) -> int:
    old, new = (np.full((len(COMPETITION.test), len(COMPETITION.classes)), value) for value in (0.25, 0.75))

    def work(place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        file = place / "submission.csv"
        if not file.exists():
            submission.write(file, old, COMPETITION, [])
        submission.check(file, COMPETITION)  # whichever it is, it is complete
        submission.write(file, new, COMPETITION, [])

    return every_point(
        work, folder, lambda place, whole, steps: same_files(place, whole, ["submission.csv", "submission.json"])
    )


if __name__ == "__main__":
    works = {"training": training, "caching": caching, "submission": submitting}
    if len(sys.argv) != 3 or sys.argv[1] not in works or any(Path(sys.argv[2]).glob("*")):
        sys.exit(f"{__doc__}\nName one of {', '.join(works)}, and a new or empty folder.")
    print(works[sys.argv[1]](Path(sys.argv[2])), "kill points")
