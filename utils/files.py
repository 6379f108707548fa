"""Files and folders that are either whole or not there, whatever stops the process that writes them."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to write in, beside `target`, which takes that name when the block has ended and all of it is on the disk.

    What stands there by then stays, having come first, or goes if `replace`. If the block fails, nothing of it is left. A killed
    process may leave a `.part`, which is never read. Raises OSError, with the remedy, if the disk is full or cannot be written to.
    """
    unfinished = temporary_name(target)
    earlier = unfinished.with_suffix(".old")
    with explain_errors(target):
        try:
            unfinished.mkdir(parents=True)
            yield unfinished
            for path in [*unfinished.rglob("*"), unfinished]:
                _sync(path)
            if replace and target.exists():
                target.rename(earlier)
            try:
                unfinished.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            _sync(target.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.rmtree(earlier, ignore_errors=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """The same for a file: the path to write to, beside `target`."""
    unfinished = temporary_name(target)
    with explain_errors(target):
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            _sync(unfinished)
            unfinished.replace(target)
            _sync(target.parent)
        finally:
            unfinished.unlink(missing_ok=True)


def temporary_name(target: Path) -> Path:
    """A name for what is to become `target`, that no other process takes."""
    return target.with_name(f"{target.name}.{os.getpid()}.part")


def _sync(path: Path) -> None:
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explain_errors(target: Path) -> Iterator[None]:
    """Turn an error of writing `target` into a sentence that names it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        reason = f"{target} cannot be written ({error.strerror}): free some space, or name another folder with FAT_WORK."
        raise OSError(f"{reason} What stood there still does.") from error


def is_temporary(path: Path) -> bool:
    """Whether `path` is of a write that has not ended."""
    return path.suffix in (".part", ".old")
