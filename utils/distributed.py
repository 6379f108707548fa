"""Several processes that train one model, as torchrun starts them; with one process, each call here does nothing."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from .config import TrainingConfig
from .run_folder import Run
from .workspace import ROOT, Workspace

PATIENCE = timedelta(hours=2)  # how long the other processes wait for the one that makes the cache


def rank() -> int:
    """This process's number; 0 is the one that prints and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, over all machines."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first_here() -> bool:
    """Whether this is the first process of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, each with a GPU of its own if there are any; all but the first fall silent."""
    if "WORLD_SIZE" not in os.environ:  # not started by torchrun
        yield
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
    try:
        with redirect_stdout(io.StringIO()) if rank() else nullcontext(sys.stdout):
            yield
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait here for all processes."""
    if dist.is_initialized():
        dist.barrier()


def share(rows: Tensor) -> Tensor:
    """This process's part of `rows`: every one is in just one process's."""
    return rows[rank() :: world_size()]


def add_up(tensor: Tensor) -> Tensor:
    """`tensor`, overwritten by its sum over all processes."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def parallel(model: nn.Module) -> nn.Module:
    """`model`, its gradients averaged and its batches normalised over all processes. Its layers are still those of `model`."""
    if not dist.is_initialized() or not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    if next(model.parameters()).is_cuda:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    else:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = BatchNormOverProcesses
    return DistributedDataParallel(model)


def launch(model: str, kit: Workspace, settings: TrainingConfig, processes: int | str = "gpu") -> Run:
    """Train `model`, as the preset calls it, with `settings` on `processes` processes, or one for each GPU, and read the finished run.

    It is `torchrun --standalone --nproc_per_node=... -m utils.train`, what a shell would start, so it works after this process has
    used a GPU too. Raises ChildProcessError if it fails; what it printed stands above.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m", "utils.train"]
    command += [model, "--data", str(kit.competition.folder), "--work", str(kit.folder), "--preset", kit.preset.name]
    command += ["--settings", json.dumps(asdict(settings))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for text in io.TextIOWrapper(process.stdout, newline=""):  # the line ends stay as they are, for the progress bar's sake
            print(text, end="")
    if process.returncode:
        raise ChildProcessError(f"torchrun of {model} ended with code {process.returncode}; what it printed stands above.")
    return Run(kit.run_folder(model))


class BatchNormOverProcesses(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes: torch's SyncBatchNorm is for GPUs alone, this one for the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes, wide = (0, 2, 3), x.float()
        count = add_up(torch.tensor(x.numel() / x.shape[1]))
        mean = _Sum.apply(wide.sum(axes)) / count
        centred = wide - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """Sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return add_up(x.clone())

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return add_up(gradient.clone())
