"""Several processes that train one model, as torchrun starts them; with one process, each call here does nothing."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process's number; 0 is the one that prints and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, over all machines."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started, each with a GPU of its own if there are as many; all but the first fall
    silent.
    """
    if "WORLD_SIZE" not in os.environ:  # not started by torchrun
        yield
        return
    backend, device = "gloo", None
    if torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]):
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, device_id=device)
    with redirect_stdout(io.StringIO()) if rank() else nullcontext(sys.stdout):
        yield
    dist.destroy_process_group()  # not after an error: the others, which wait, would have to answer


def barrier() -> None:
    """Wait here for all processes."""
    if dist.is_initialized():
        dist.barrier()


def shard(rows: Tensor) -> Tensor:
    """This process's part of `rows`: every one is in just one process's."""
    return rows[rank() :: world_size()]


def all_reduce(tensor: Tensor) -> Tensor:
    """`tensor`, overwritten by its sum over all processes."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the first one's statistics of batch normalisation, which are what is kept."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def wrap(model: nn.Module) -> nn.Module:
    """`model` with its gradients averaged over all processes, and on GPUs its batches normalised over all of them.

    Its layers are still those of `model`. On a CPU torch has no such batch normalisation: each process takes its own.
    """
    if not dist.is_initialized() or not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    if next(model.parameters()).is_cuda:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model)
