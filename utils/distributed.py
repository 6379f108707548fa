"""Train one model in several processes, started by torchrun; with one process, the calls have no effect."""

import gc
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """Return this process's number; process 0 prints and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes on all machines."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's processes, each with its own GPU if there are enough; only the first one prints."""
    if "LOCAL_WORLD_SIZE" not in os.environ:  # not started by torchrun
        yield
        return
    # Threads of the group that outlive it can crash the exit, and what refers to it keeps it alive: the defaults of
    # these functions, if they are imported later, and DDP, which garbage collection frees.
    from torch.distributed.nn import functional  # noqa: F401

    backend, device = "gloo", None
    if torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]):
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, device_id=device)
    with redirect_stdout(io.StringIO()) if rank() else nullcontext():
        yield
    gc.collect()
    dist.destroy_process_group()  # not after an error: it needs the other processes, which are waiting


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()


def shard(rows: Tensor) -> Tensor:
    """Return this process's part of `rows`; each row belongs to exactly one process."""
    return rows[rank() :: world_size()]


def all_reduce(tensor: Tensor) -> Tensor:
    """Overwrite `tensor` with its sum over all processes, and return it."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def agree(number: int) -> bool:
    """Whether all processes have the same `number`."""
    total, squares = all_reduce(torch.tensor([number, number**2]))
    return bool(total**2 == squares * world_size())  # the variance is 0


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the batch normalization statistics of the first one, which are those saved."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def wrap(model: nn.Module) -> nn.Module:
    """Average the gradients of `model` over all processes and, on GPUs, normalize its batches over all of them.

    The result shares the layers of `model`. torch has no such batch normalization on a CPU: each process uses its own
    statistics.
    """
    if not dist.is_initialized():
        return model
    if next(model.parameters()).is_cuda:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    wrapped = DistributedDataParallel(model)
    wrapped.broadcast_buffers = False  # in every step; `broadcast_buffers` does it once, when needed
    return wrapped
