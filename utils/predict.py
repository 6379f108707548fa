"""Tag sounds with a finished run.

python -m utils.predict PATH...                          tag files and folders with the best run
python -m utils.predict PATH... --detections FILE.csv    list when each class is heard in them
python -m utils.predict FILE --over_time PLOT.png        also plot when each class is heard
python -m utils.predict FILE --explain PLOT.png          also plot what supports the top class
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from . import audio, explain, files, inference, mel_cache, plots, runs, splits, workspace
from .augment import tta_crops
from .config import MelConfig
from .dataset import MelDataset
from .run_folder import Run


def tag(paths: str | Path | Sequence[str | Path], run: Run, device: str = "cpu") -> pd.DataFrame:
    """Score each sound, as `inference.score_run` does: a row per file (the index `fname`), a column per class.

    Silence has scores of 0. Of a long recording, that is at most `run.config.test_crops` excerpts: prints how many
    sounds are longer than these.

    `paths`: a file, a folder with sounds in it or below, or a list of those. `fname` is relative to the given folder,
    or the file's name; where these are not unique, the path. Files that cannot be read are printed with the reason and
    have no row. Raises FileNotFoundError if a path does not exist or a folder has no sound, and ValueError if no file
    can be read.
    """
    run.require_weights()
    with _clips(_table(paths), run, run.mel, device) as clips:
        n_crops, n_frames = run.config.test_crops, run.config.n_frames
        if longer := int((clips.lengths > n_crops * n_frames).sum()):
            seconds = n_frames * run.mel.hop_length / run.mel.sample_rate
            excerpts = f"{n_crops} excerpt{'s' * (n_crops > 1)} of {seconds:.0f} s"
            print(f"{longer} of {len(clips)} sounds are longer than the {excerpts} that these scores are from:")
            print("tag_over_time or, in a shell, --detections scores a whole recording.")
        scores = inference.score_run(run, clips)
        scores[clips.table[splits.CONTENT] == ""] = 0  # silence
        return pd.DataFrame(scores, index=pd.Index(clips.table["fname"]), columns=run.classes)


def top_classes(scores: pd.DataFrame, k: int = 3) -> pd.DataFrame:
    """Return each clip's `k` highest scores, highest first: columns `fname`, `class` and `score`, `k` rows per clip."""
    values = scores.to_numpy()
    top = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return pd.DataFrame({
        "fname": scores.index.repeat(top.shape[1]),
        "class": scores.columns.to_numpy()[top].ravel(),
        "score": np.take_along_axis(values, top, axis=1).ravel(),
    })  # fmt: skip


def tag_over_time(path: str | Path, run: Run, seconds: float = 1.0, device: str = "cpu") -> pd.DataFrame:
    """Score one window (2 s) every `seconds` of a recording, untrimmed: a row per window, a column per class.

    The index `seconds` is the middle of the window, to 0.01 s. With a step of up to a window, the last one ends within
    half a step of the recording's end, so part of it may lie beyond; a recording shorter than a window has one row, as
    if it began with the window. Each is scored as if it were a recording of its own, whatever is louder elsewhere, but
    silence, `top_db` or more below the recording's loudest point, has scores of 0. Raises FileNotFoundError and
    ValueError as `tag` does, and ValueError if `seconds` is less than a frame.
    """
    run.require_weights()
    frame = run.mel.hop_length / run.mel.sample_rate
    if not frame <= seconds < np.inf:
        raise ValueError(f"seconds is {seconds}, but windows are at least a frame apart: make it {frame:.3f} or more.")
    n_frames, step = run.config.n_frames, seconds / frame
    with _untrimmed(path, run, device) as clips:
        length = int(clips.lengths[0])
        # A last window that is cut short is padded at its end: "random" would center it, as it does a short recording.
        config = run.config if length < n_frames else replace(run.config, crop="start")
        begins = np.arange(0, max(0, length - n_frames) + min(step, n_frames) / 2, step)
        windows = clips.subset(np.zeros(len(begins), dtype=int))  # the recording, once for each window
        offsets = torch.from_numpy(begins).round().long()
        windows.starts = windows.starts + offsets
        windows.lengths = (length - offsets).clamp(max=n_frames)
        models = run.models()
        for model in models:
            model.register_forward_pre_hook(lambda _, inputs: _limited(inputs[0], run.mel))
        values = inference.blend([inference.predict_scores(model, windows, config) for model in models])
        levels = clips.clip(0).amax(dim=1).cpu()
        loudest = np.array([levels[begin:][:n_frames].max() for begin in offsets])
        values = np.where(loudest[:, None] <= run.mel.silence(float(levels.max())), 0, values)
    middles = (begins + (n_frames - 1) / 2) * frame  # frame i is centered on i
    return pd.DataFrame(values, index=pd.Index(middles.round(2), name="seconds"), columns=run.classes)


def detections(over_time: pd.DataFrame, run: Run, threshold: float = 0.5) -> pd.DataFrame:
    """List when each class is heard, given the scores of `tag_over_time`: `start`, `end`, `labels` and `score`.

    A row is a series of windows with scores of `threshold` or more: from the start of its first window to the end of
    its last, in seconds, and the highest of the scores. The sound itself may be shorter than a window, and the last
    window may end after the recording.
    """
    window = (run.config.n_frames - 1) * run.mel.hop_length / run.mel.sample_rate
    rows = []
    for name, scores in over_time.items():
        heard = scores >= threshold
        series = (heard != heard.shift()).cumsum()[heard]
        for _, some in scores[heard].groupby(series):
            start, end = some.index[0] - window / 2, some.index[-1] + window / 2
            rows.append((round(start, 2), round(end, 2), name, some.max()))
    table = pd.DataFrame(rows, columns=["start", "end", "labels", "score"])
    return table.sort_values(["start", "labels"], ignore_index=True)


def explain_top_class(path: str | Path, run: Run, device: str = "cpu") -> tuple[str, float, np.ndarray, np.ndarray]:
    """Return a recording's top class, and the start in seconds, dB and relevance of the crop with its highest logit.

    dB and relevance are (n_mels, frames). Raises FileNotFoundError and ValueError as `tag` does, and ValueError and
    ImportError as `explain.relevance` does.
    """
    with _clips(_table([path]), run, run.mel, device) as clips:
        label = int(inference.score_run(run, clips)[0].argmax())
    networks = [network.to(device).eval() for network in run.models()]
    with _untrimmed(path, run, device) as clips:
        every_crop = replace(run.config, test_crops=int(clips.lengths[0]))  # fewer could miss the sound
        rows, offsets = tta_crops(clips.lengths, every_crop)
        x = clips.crops(rows, offsets, run.config.n_frames)
        silent = x.amax(dim=(1, 2, 3)) <= run.mel.silence(float(clips.clip(0).max()))
    x = _limited(x, run.mel)
    with torch.no_grad():
        batches = [sum(network(some)[:, label] for network in networks) for some in x.split(explain.BATCH)]
    best = int(torch.cat(batches).masked_fill(silent, -math.inf).argmax())
    points, _ = explain.relevance(networks, x[[best]], torch.tensor([label]))
    begin = int(offsets[best]) * run.mel.hop_length / run.mel.sample_rate
    return run.classes[label], begin, x[best, 0].cpu().numpy(), points[0].cpu().numpy()


def _table(paths: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """List `fname` and `path` of each sound, without repeats."""
    rows = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if path.is_dir():
            rows += [(sound.relative_to(path).as_posix(), str(sound)) for sound in audio.find_sounds(path)]
        elif path.is_file():
            rows.append((path.name, str(path)))
        else:
            raise FileNotFoundError(f"{path} does not exist: give a sound file or a folder of them.")
    table = pd.DataFrame(rows, columns=["fname", "path"]).drop_duplicates("path", ignore_index=True)
    if table.empty:
        raise ValueError("There is no sound to score: give at least one file or folder.")
    files.refuse_line_breaks(table["path"], "the list of sounds")
    return table.assign(fname=table["path"]) if table["fname"].duplicated().any() else table


@contextmanager
def _clips(table: pd.DataFrame, run: Run, settings: MelConfig, device: str) -> Iterator[MelDataset]:
    """Yield the readable sounds of `table`, from a temporary cache whose report is printed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps memory-mapped files
        n_jobs = 1 if len(table) <= mel_cache.CHUNK else -1  # one task: starting a worker would take longer
        cache = mel_cache.build(table, folder, "sounds", settings, n_jobs, temporary=True)
        yield MelDataset(cache, cache.readable(table), run.classes, device)


def _untrimmed(path: str | Path, run: Run, device: str) -> AbstractContextManager[MelDataset]:
    """Return `_clips` of one recording, untrimmed, so that times are those of the recording, and not yet `_limited`."""
    return _clips(_table([path]), run, replace(run.mel, trim_db=math.inf, top_db=math.inf), device)


def _limited(x: Tensor, settings: MelConfig) -> Tensor:
    """Clip each crop `top_db` below its own loudest point, as if it were a recording of its own."""
    return x.clamp(min=x.amax(dim=(1, 2, 3), keepdim=True) - settings.top_db)


def _write_detections(file: Path, table: pd.DataFrame, run: Run, threshold: float, device: str) -> None:
    """Write the `detections` in all sounds of `table`: after each, since all may take hours."""
    print(f"written after each sound: {file}")
    labels = []
    for clip in tqdm(table.itertuples(), "detections", len(table), unit="sound", file=sys.stdout):
        try:
            found = detections(tag_over_time(clip.path, run, device=device), run, threshold)
        except mel_cache.NoReadableClip as error:
            tqdm.write(f"{clip.path}: {error}")
            continue
        except MemoryError:
            tqdm.write(f"{clip.path} needs more memory than there is, 2.4 GB for an hour: cut it into parts")
            continue
        found.insert(0, "fname", clip.fname)
        with files.explain_errors(file):
            found.round(3).to_csv(file, index=False, mode="a", header=not labels)
        labels.append(found["labels"])
    if not labels:
        raise ValueError(f"None of {len(table)} sounds can be scored: replace them, or cut them into parts.")
    every = pd.concat(labels)
    print(every.value_counts().to_string() if len(every) else "no score reaches the threshold")
    print(f"{len(every)} detections in {len(labels)} of {len(table)} sounds")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.predict", description="Tag sounds with a finished run.")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="sound file, or folder with sounds in it or below")
    parser.add_argument("--run", metavar="FOLDER", help="folder of the run (default: the best in the work folder)")
    parser.add_argument("--top", type=int, default=3, help="number of classes to print for each sound")
    parser.add_argument("--over_time", metavar="FILE.png", help="file for a plot of a sound's scores over time")
    parser.add_argument("--explain", metavar="FILE.png", help="file for a plot of what supports a sound's top class")
    parser.add_argument("--csv", metavar="FILE", help="file for all scores")
    what = "file for a table of when each class is heard in whole recordings, instead of all else"
    parser.add_argument("--detections", metavar="FILE.csv", help=what)
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score of a detection (default: 0.5)")
    options = parser.parse_intermixed_args(arguments)
    if (options.over_time or options.explain) and (len(options.paths) > 1 or Path(options.paths[0]).is_dir()):
        parser.error("--over_time and --explain plot one sound: give one file")
    if options.detections and (options.csv or options.over_time or options.explain):
        parser.error("--detections is a command of its own: leave out --csv, --over_time and --explain")
    if options.top < 1:
        parser.error(f"--top is {options.top}: give 1 or more")
    if not 0 < options.threshold <= 1:
        parser.error(f"--threshold is {options.threshold}: give a score above 0, up to 1")
    for file in filter(None, (options.csv, options.over_time, options.explain, options.detections)):
        if not Path(file).absolute().parent.is_dir():
            parser.error(f"{file} is in a folder that does not exist: make it first")
        if Path(file).is_dir() or Path(file).suffix.lower() in audio.SUFFIXES:
            parser.error(f"{file} is a sound or a folder, not a file to write: name that first")
    if options.detections and Path(options.detections).exists():
        parser.error(f"{options.detections} exists, perhaps corrected by hand: choose another name, or remove it")
    with workspace.errors_in_one_sentence(parser):
        run = runs.open_run(options.run)
        described = f"{run.record['title']}, validation LWLRAP {run.summary()['LWLRAP']:.3f}"
        print(f"run: {workspace.short_path(run.folder)}, {described}")
        if runs.on_mini_set(run):
            print(runs.ON_MINI_SET)
        device, _ = workspace.find_device()
        if options.detections:
            _write_detections(Path(options.detections), _table(options.paths), run, options.threshold, device)
            return
        found = tag(options.paths, run, device)
        print(top_classes(found, options.top).round(3).to_string(index=False))
        if options.csv:
            found.to_csv(options.csv)
        if options.over_time:
            path = options.paths[0]
            scores = tag_over_time(path, run, device=device)
            figure = plots.tags_over_time(audio.load_clip(path, run.mel), scores, run.mel)
            figure.savefig(options.over_time, dpi=150)
        if options.explain:
            label, begin, crop, points = explain_top_class(options.paths[0], run, device)
            title = f"relevance for {plots.display_name(label)}"
            plots.relevance(crop, {title: points}, run.mel, begin).savefig(options.explain, dpi=150)


if __name__ == "__main__":
    main()
