"""Files and folders that are either whole or not there, whatever stops the process that writes them."""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from uuid import uuid4

ABANDONED_AFTER = 24 * 3600  # s without a change, after which nobody is still writing
CANNOT_WRITE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST
)  # fmt: skip
# Windows opens no folder (EACCES), some network file systems sync none.
CANNOT_SYNC_FOLDER = (errno.EACCES, errno.EINVAL, errno.EBADF, errno.ENOTSUP)


@contextmanager
def atomic_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to write in, beside `target`, which takes that name when the block has ended, all of it on the disk.

    If `target` exists by then, it stays, or is replaced with `replace`. If the block fails, nothing of it is left; what
    a killed process leaves, a `.part` or `.old` that is never read, goes with a later write of `target`, from a day on.
    Several processes and machines may write the same `target`: one of them comes first. Raises OSError, with the
    remedy, if the disk is full or cannot be written to; what stood there then still does.
    """
    with explain_errors(target):
        unfinished = _begin(target)
        unfinished.mkdir()
        try:
            yield unfinished
            for path in [*unfinished.rglob("*"), unfinished]:
                _sync(path)
            _put_in_place(unfinished, target, replace)
            _sync(target.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """The same for a file, which replaces what stands there: the path to write to, beside `target`."""
    with explain_errors(target):
        unfinished = _begin(target)
        try:
            yield unfinished
            _sync(unfinished)
            unfinished.replace(target)
            _sync(target.parent)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def explain_errors(target: Path) -> Iterator[None]:
    """Turn an error of writing `target` into a sentence that names it."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        remedy = "free some space, or choose another folder. Existing files are unchanged."
        raise OSError(f"{target} cannot be written ({error.strerror}): {remedy}") from error


def is_temporary(path: Path) -> bool:
    """Whether `path` is of a write that has not ended."""
    return path.suffix in (".part", ".old")


def refuse_undecodable(names: Iterable[str], where: str | Path) -> None:
    """Raises ValueError if some of these file names in `where` are not UTF-8, as an old zip may leave them."""
    bad = [name for name in names if re.search("[\ud800-\udfff]", name)]  # how Python spells such bytes
    if bad:
        raise ValueError(
            f"{where} has {len(bad)} file names that are not UTF-8, {os.fsencode(bad[0])!r} for one: rename them, or "
            "unpack them again with the encoding that they were packed in."
        )


def _begin(target: Path) -> Path:
    """A path beside `target` to write to, which nobody else takes, in a folder that is there, without leftovers."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kinds = "part|old" if target.exists() else "part"  # a process killed between two renames leaves the only .old
    leftover = re.compile(rf"{re.escape(target.name)}\.[0-9a-f]+\.({kinds})")
    for path in [path for path in target.parent.iterdir() if leftover.fullmatch(path.name)]:
        with suppress(FileNotFoundError):  # another process clears up too
            stats = [file.lstat() for file in [path, *path.rglob("*")]]
            if time() - max(max(stat.st_mtime, stat.st_ctime) for stat in stats) > ABANDONED_AFTER:
                _remove(path)
    return target.with_name(f"{target.name}.{uuid4().hex}.part")


def _put_in_place(unfinished: Path, target: Path, replace: bool) -> None:
    earlier = unfinished.with_suffix(".old")
    if replace:
        with suppress(FileNotFoundError):  # nothing there, or another process was faster
            target.rename(earlier)
    try:
        unfinished.rename(target)
    except OSError as error:
        if not os.path.lexists(target) and os.path.lexists(earlier):
            earlier.rename(target)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    _remove(earlier)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have what was written to `path`, a file or a folder, on the disk."""
    if path.is_symlink():
        return
    if path.is_dir():
        try:
            _sync_descriptor(os.open(path, os.O_RDONLY))
        except OSError as error:
            if error.errno not in CANNOT_SYNC_FOLDER:
                raise
    else:
        _sync_descriptor(os.open(path, os.O_RDWR))  # Windows syncs only what may be written to


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
