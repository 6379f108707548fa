"""Train on all available GPUs or cores, from a notebook or from a shell.

python -m utils.launch deep_cnn --data DIR                                        one process
torchrun --standalone --nproc_per_node=gpu -m utils.launch deep_cnn --data DIR    all GPUs of this machine
"""

import argparse
import json
import math
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from . import dataset, distributed, mel_cache, models, train
from .config import PRESETS, TrainingConfig
from .dataset import MelDataset, load_split
from .run_folder import Run
from .workspace import ROOT, errors_in_one_sentence, setup, short_path

ARGUMENTS = "arguments.pickle"  # of `fit`, for its processes
MOST_PER_GPU = 6  # processes of `train_in_parallel`, each of which needs memory
STOP = -1  # in place of the count of steps, tells the processes of `train_in_parallel` to stop
ONE_TRAINING = [name for name in models.MODELS if name != "best"]  # best is several, in notebook 06


def fit(
    model: nn.Module,
    train_set: MelDataset,
    validation_set: MelDataset,
    config: TrainingConfig,
    folder: str | Path,
    title: str,
    processes: int | None = None,
) -> Run:
    """Call `train.fit` in `processes` processes, by default one per GPU if all are alike and NCCL is there, else one.

    Several processes are started by torchrun, with the same arguments. The run then differs from that of one process by
    dropout and, on a CPU, by batch normalization (see `distributed.wrap`). A model with frozen layers always trains in
    one. Raises ChildProcessError if they fail; their output is printed.
    """
    if processes is None:
        gpus = _gpus_like(train_set.device)
        alike = len(gpus) == torch.cuda.device_count() and dist.is_nccl_available()
        processes = max(1, min(len(gpus), config.smallest_batch(len(train_set)))) if alike else 1
    if processes == 1 or getattr(model, "n_frozen", 0):
        return train.fit(model, train_set, validation_set, config, folder, title)
    with tempfile.TemporaryDirectory() as job:
        arguments = (model, train_set, validation_set, config, Path(folder).resolve(), title)
        (Path(job) / ARGUMENTS).write_bytes(pickle.dumps(arguments))  # a folder that nobody else can write to
        # The address is given because torchrun may wait long for the system to resolve this machine's name.
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
        command = [sys.executable, *torchrun, f"--nproc_per_node={processes}", "-m", "utils.launch", "--job", job]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            for text in TextIOWrapper(process.stdout, errors="replace", newline=""):  # keep line ends
                print(text, end="")
    if process.returncode:
        raise ChildProcessError(f"{title}: torchrun exited with code {process.returncode}: see its output above.")
    return Run(folder)


def train_in_parallel(
    train_one: Callable[..., Run], chains: list[list[tuple]], steps: int, device: torch.device
) -> None:
    """Call `train_one(*arguments, bar)` for every training, with one progress bar for all their `steps`.

    The trainings of a chain run one after another. Chains run in parallel, each training in a process with its share of
    the threads: small networks gain more by that than by threads. If `device` is a GPU, all GPUs of its kind are used,
    by up to six processes each: a small network leaves a GPU idle most of the time. If one training fails, the others
    stop and its exception is raised.
    """
    n_threads, gpus = torch.get_num_threads(), _gpus_like(device)
    at_once = min(len(chains), max(n_threads, len(gpus)))
    if gpus:
        at_once = min(at_once, MOST_PER_GPU * len(gpus))
    with tqdm(total=steps, unit="step", file=sys.stdout, mininterval=1) as bar:
        if at_once == 1:
            for trainings in chains:
                for arguments in trainings:
                    train_one(*arguments, bar)
            return
        bar.set_description(f"{sum(map(len, chains))} trainings, {at_once} at once")
        context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of torch's threads
        done, started = context.Value("q", 0), context.Value("i", 0)
        with ProcessPoolExecutor(at_once, context, _begin, (done, started, at_once, n_threads, gpus)) as pool:
            try:
                idle, running = list(map(iter, chains)), {}
                while idle or running:
                    for rest in idle:  # the next training queues behind those that wait already
                        if arguments := next(rest, None):
                            running[pool.submit(_work, pickle.dumps((train_one, arguments)))] = rest
                    ended = wait(running, timeout=1, return_when=FIRST_COMPLETED).done
                    for future in ended:
                        future.result()
                    idle = [running.pop(future) for future in ended]
                    bar.update(done.value - bar.n)
            except RuntimeError as error:  # BrokenProcessPool is one, and so is what torch raises
                killed = isinstance(error, BrokenProcessPool)
                if not killed and not re.search("(out of|allocate|enough) memory", str(error)):  # GPU, Linux, Windows
                    raise
                what = "was killed, probably (unless an error is shown above) for" if killed else "stopped for"
                remedy = "OMP_NUM_THREADS=1 trains one at a time, or one per GPU; finished ones are not repeated"
                raise MemoryError(f"A training {what} lack of memory: {remedy}.") from error
            finally:  # if one has failed or this was interrupted, the others stop
                done.value = STOP
                pool.shutdown(cancel_futures=True)


def _gpus_like(device: torch.device) -> list[int]:
    """Return the indices of the GPUs with the compute capability of `device`; none for a CPU."""
    if device.type != "cuda":
        return []
    capability = torch.cuda.get_device_capability
    return [number for number in range(torch.cuda.device_count()) if capability(number) == capability(device)]


class _Steps(tqdm):
    """Silent progress bar of a process of `train_in_parallel`, which counts for the bar of the parent."""

    done = None

    def update(self, n: int = 1) -> None:
        with self.done.get_lock():
            if self.done.value == STOP:
                raise KeyboardInterrupt  # by the parent, which has failed, ended or been interrupted
            self.done.value += n


def _begin(done, started, at_once: int, n_threads: int, gpus: list[int]) -> None:  # noqa: ANN001
    _Steps.done = done
    torch.set_num_threads(max(1, n_threads // at_once))
    if gpus:
        dataset.processes_per_gpu = math.ceil(at_once / len(gpus))
        with started.get_lock():
            torch.cuda.set_device(gpus[started.value % len(gpus)])
            started.value += 1
    # A killed parent sends no signal: without this, its processes would train on or wait forever.
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()


def _work(pickled: bytes) -> None:
    """Run one training in a process of the pool.

    Its arguments come as bytes: the pool itself would send their tensors through shared memory, which is often small.
    """
    bar = _Steps(disable=True)
    bar.update(0)  # raises if another training has failed: the pool hands out some work in advance
    train_one, arguments = pickle.loads(pickled)
    train_one(*arguments, bar)


def _changes(text: str) -> dict:
    """Parse changes of a TrainingConfig, in JSON."""
    try:
        changes = json.loads(text)
        if not isinstance(changes, dict):
            raise ValueError("give an object, such as '{\"batch_size\": 64}'")
        if unknown := changes.keys() - TrainingConfig.__dataclass_fields__:
            raise ValueError(f"{min(unknown)} is not one of {', '.join(TrainingConfig.__dataclass_fields__)}")
        replace(TrainingConfig(epochs=1), **changes)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return changes


def main(arguments: list[str] | None = None) -> None:
    """Run the command line described at the top of this file."""
    about = "Train one model, alone or under torchrun, on the cache made by python -m utils.run 02."
    parser = argparse.ArgumentParser(prog="python -m utils.launch", description=about)
    parser.add_argument("model", nargs="?", choices=ONE_TRAINING, help="model to train")
    parser.add_argument("--data", help="data folder, in Kaggle's or Zenodo's layout (FAT_DATA)")
    parser.add_argument("--work", help="folder for artifacts (FAT_WORK)")
    parser.add_argument("--preset", choices=PRESETS, help="default: quick, on a GPU full (FAT_PRESET)")
    parser.add_argument("--config", type=_changes, default={}, help="config changes, such as '{\"batch_size\": 64}'")
    parser.add_argument("--name", help="of the run, before -PRESET; the default is the model")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not (options.model or options.job):
        parser.error(f"name a model: {', '.join(ONE_TRAINING)}")
    # `runs.preferred` takes runs whose names begin with best for blends.
    if options.name is not None and not re.fullmatch(r"(?!best)[\w-]+", options.name):
        parser.error("argument --name: use letters, digits, - and _, and do not begin with best")
    if options.work:
        os.environ["FAT_WORK"] = options.work
    with distributed.process_group(), errors_in_one_sentence(parser):
        if options.job:
            train.fit(*pickle.loads((Path(options.job) / ARGUMENTS).read_bytes()))
            return
        kit = setup(options.data, options.preset)
        table, classes, entry = kit.competition.curated, kit.competition.classes, models.MODELS[options.model]
        cache = mel_cache.load(table, kit.cache, "curated", kit.preset.mel)
        sets = load_split(cache, table, classes, kit.preset, kit.device)
        weights = {"weights": models.imagenet_weights()} if entry.pretrained else {}
        if None in weights.values():
            raise OSError("No ImageNet weights: the hub cannot be reached and FAT_VGG19_WEIGHTS is not set.")
        model = entry.build(len(classes), kit.preset.name, **weights)
        config = replace(entry.config(kit.preset.name), **options.config)
        run = train.fit(model, *sets, config, kit.run_folder(options.name or options.model), entry.title)
        if distributed.rank() == 0:  # others may not see its folder yet
            print(run.history.dropna().tail().round(3).to_string(index=False))
            summary = run.summary()
            of = f"by all crops of {len(run.validation)} validation clips"
            print(f"{of}: LWLRAP {summary['LWLRAP']:.3f}, top-5 {summary['top-5']:.1%}")
            print(f"written: {short_path(run.folder)}")


if __name__ == "__main__":
    main()
