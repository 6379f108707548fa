"""The choice among runs: finding them, and the clips to compare them on."""

from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from . import files, mini
from .config import attached
from .run_folder import Run
from .workspace import short_path, work_folder

ON_MINI_SET = "This run knows only the mini set's synthetic sounds: its tags say nothing about recordings."


def find_runs(folder: str | Path) -> list[Run]:
    """Find the finished runs in `folder`, highest validation LWLRAP first.

    On Kaggle, also finds those in attached notebooks' outputs and datasets, on the same data, whatever its name. Runs
    are ranked on the validation clips that all of them share; prints a line if these are few, or if two runs have one
    name, of which the last found is used. Raises FileNotFoundError if there is no run.
    """
    _, dash, key = Path(folder).name.rpartition("-")  # see Workspace.runs
    found = [*attached(f"runs/*{dash}{key}/*/settings.json"), *Path(folder).glob("*/settings.json")]
    found = [Run(file.parent) for file in found if not files.is_temporary(file.parent)]
    by_name = {}
    for run in filter(_readable, found):  # those in `folder` come last, and win
        if run.name in by_name:
            unused = short_path(by_name[run.name].folder)
            print(f"{unused} is not used: {short_path(run.folder)} has the same name.")
        by_name[run.name] = run
    runs = list(by_name.values())
    if not runs:
        remedy = "run 03_cnn first (python -m utils.run 02 03, with your --data and --work)"
        raise FileNotFoundError(f"There is no run in {folder}: {remedy}.")
    common = _shared_clips(runs)
    shared = len(common or ())
    if shared < min(len(run.validation) for run in runs) / 2:
        few = f"The runs in {short_path(Path(folder))} share only {shared} validation clips"
        print(f"{few}, so their order means little: retrain or remove those on earlier data.")
    return sorted(runs, key=lambda run: run.summary(common)["LWLRAP"], reverse=True)


def preferred(runs: Sequence[Run]) -> list[Run]:
    """Return those of `runs` that have weights, in the given order, but `best` of the preset `full` and variants first.

    Their LWLRAP is out of fold, of one model per clip; other clips get the scores of their blend, which is better.
    """
    return sorted((run for run in runs if run.has_weights), key=lambda run: not fnmatch(run.name, "best*-full"))


def best_run() -> Run:
    """Return the first of the `preferred` runs on the data with the most classes.

    Of several such data sets, the one whose best run is newest counts; the mini set, only if there is no other. Looks
    in the work folder, and on Kaggle also in what is attached. Raises FileNotFoundError if there is none.
    """
    folder = work_folder() / "runs"
    found = []
    for name in sorted({path.name for path in [*attached("runs/*"), *folder.glob("*")]}):
        with suppress(FileNotFoundError):
            found += preferred(find_runs(folder / name))[:1]
    if not found:
        remedy = "make one (python -m utils.run --data DIR 02 03), or set FAT_WORK to the folder of its --work"
        raise FileNotFoundError(f"There is no run in {folder}: {remedy}.")

    def rank(run: Run) -> tuple:
        return not on_mini_set(run), len(run.classes), (run.folder / "settings.json").stat().st_mtime

    return max(found, key=rank)


def on_mini_set(run: Run) -> bool:
    """Whether the run, or the run of whose folds it is one, was trained on the mini set."""
    return any(folder.name.startswith(mini.NAME) for folder in run.folder.parents[:2])


def open_run(folder: str | None) -> Run:
    """Return the run in `folder`; if None, the best one.

    Raises FileNotFoundError if there is none, and ValueError if it has only scores.
    """
    if folder is None:
        return best_run()
    if not (Path(folder) / "settings.json").is_file():
        raise FileNotFoundError(f"{folder} is not a run: give a folder with a settings.json.")
    run = Run(Path(folder).resolve())
    run.require_weights()
    return run


def _readable(run: Run) -> bool:
    """Whether its settings and scores can be read, and its network is known here; prints why not."""
    try:
        _ = run.summary(), run.mel  # each raises if it cannot be read
        if run.has_weights:
            _ = run.config, run.network
        return True
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        print(f"Skipped {run.folder}: {type(error).__name__}: {error}")
        return False


def common_clips(runs: list[Run]) -> set[str] | None:
    """Return the validation clips that all runs have, with the same labels; None if there are none.

    Prints how many, if some runs have more.
    """
    common = _shared_clips(runs)
    if common and any(len(run.validation) > len(common) for run in runs):
        print(f"These runs are compared on the {len(common)} validation clips that all of them were scored on.")
    return common


def _shared_clips(runs: list[Run]) -> set[str] | None:
    scored = (set(zip(run.validation["fname"], run.validation["labels"])) for run in runs)
    return {fname for fname, _ in set.intersection(*scored)} or None
