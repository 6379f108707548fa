"""Write files and folders atomically: they are complete or absent, whatever stops the process that writes them."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep, time
from uuid import uuid4

ABANDONED_AFTER = 24 * 3600  # s without a change, after which nobody is still writing
CANNOT_WRITE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST
)  # fmt: skip
PAUSES = (0.1, 0.3, 1, 3) if os.name == "nt" else ()  # s, before a rename is tried again


@contextmanager
def atomic_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a folder beside `target` to write in, which is synced to disk and renamed to `target` when the block ends.

    If `target` exists by then, it is kept, or replaced with `replace`. If the block fails, nothing of it is left. A
    killed process leaves a `.part` or `.old` that is never read and that a later write of `target` removes after a day.
    Several processes and machines may write the same `target`: one of them wins. Raises OSError, with the remedy, if
    the disk is full or cannot be written to; existing files are then unchanged.
    """
    with explain_errors(target):
        unfinished = _begin(target)
        unfinished.mkdir()
        try:
            yield unfinished
            for path in unfinished.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    _sync(path)
            _put_in_place(unfinished, target, replace)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write a file to, which then replaces `target` as in `atomic_folder`."""
    with explain_errors(target):
        unfinished = _begin(target)
        try:
            yield unfinished
            _sync(unfinished)
            _move(unfinished.replace, target)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def explain_errors(target: Path) -> Iterator[None]:
    """Turn an error from writing `target` into one sentence that names it."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        remedy = "free some space, close what has it open, or choose another folder. Existing files are unchanged."
        raise OSError(f"{target} cannot be written ({error.strerror}): {remedy}") from error


def is_temporary(path: Path) -> bool:
    """Whether `path` belongs to an unfinished write."""
    return bool(re.search(r"\.[0-9a-f]{32}\.(part|old)$", path.name))


def refuse_undecodable(names: Iterable[str], where: str | Path) -> None:
    """Raise ValueError if any of these file names in `where` is not UTF-8, as an old zip may leave them."""
    if bad := [name for name in names if re.search("[\ud800-\udfff]", name)]:  # how Python decodes such bytes
        raise ValueError(
            f"{where} has {len(bad)} file names that are not UTF-8, such as {os.fsencode(bad[0])!r}: rename them, or "
            "unpack them again with the encoding they were packed in."
        )


def refuse_line_breaks(names: Iterable[str], where: str | Path) -> None:
    """Raise ValueError if any of these file names in `where` has a line break, which tables could not hold."""
    if broken := [name for name in names if re.search("[\r\n]", name)]:
        raise ValueError(f"{where} has {len(broken)} file names with a line break, such as {broken[0]!r}: rename them.")


def _begin(target: Path) -> Path:
    """Return a unique path beside `target` to write to, after making its folder and removing leftovers."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kinds = "part|old" if target.exists() else "part"  # .old may be the only copy, after a kill between two renames
    leftover = re.compile(rf"{re.escape(target.name)}\.[0-9a-f]{{32}}\.({kinds})")
    for path in [path for path in target.parent.iterdir() if leftover.fullmatch(path.name)]:
        with suppress(FileNotFoundError):  # another process is cleaning up too
            stats = [file.lstat() for file in [path, *path.rglob("*")]]
            if time() - max(max(stat.st_mtime, stat.st_ctime) for stat in stats) > ABANDONED_AFTER:
                _remove(path)
    return target.with_name(f"{target.name}.{uuid4().hex}.part")


def _put_in_place(unfinished: Path, target: Path, replace: bool) -> None:
    earlier = unfinished.with_suffix(".old")
    if replace:
        with suppress(FileNotFoundError):  # nothing there, or another process was faster
            _move(target.rename, earlier)
    try:
        _move(unfinished.rename, target)
    except OSError as error:
        if not os.path.lexists(target) and os.path.lexists(earlier):
            _move(earlier.rename, target)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    _remove(earlier)


def _move(rename: Callable[[Path], object], target: Path) -> None:
    """Call `rename(target)`; on Windows several times, since a virus scanner may hold what was just written."""
    for pause in PAUSES:
        try:
            rename(target)
            return
        except PermissionError:
            sleep(pause)
    rename(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    """Flush `file` to disk."""
    with open(file, "rb+") as opened:  # Windows only syncs files open for writing
        os.fsync(opened.fileno())
