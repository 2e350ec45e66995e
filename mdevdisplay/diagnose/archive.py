"""A small .tar.gz that appears whole or not at all, and tells nothing of who packed it."""

from __future__ import annotations

import gzip
import io
import os
import secrets
import stat
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mdevdisplay.errors import MdevDisplayError

__all__ = ["pack", "write_file"]

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def pack(folder: str, members: Mapping[str, bytes], now: int) -> bytes:
    """Return a .tar.gz of files below one folder, so that unpacking it overwrites nothing of the same name.

    Args:
        folder: the name of the folder.
        members: the files by their names.
        now: what all of them have for a time, in seconds since 1970.
    """
    packed = io.BytesIO()
    # no file name and no other time in the header of gzip either
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=now) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, data in members.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mtime, member.mode = len(data), now, 0o644
            tar.addfile(member, io.BytesIO(data))  # uid, gid 0 and no names is what TarInfo begins with
    return packed.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """Write a file beside its name, for its owner alone, and put it in its place when it is complete.

    No link is followed; what is there already is only replaced if it is a regular file.

    Raises:
        MdevDisplayError: it cannot be written; cause ``cannot-write``.
    """
    try:
        folder = os.open(path.parent, _OPEN_FOLDER)
        try:
            _refuse_others(path, folder)
            _replace(path.name, folder, data)
        finally:
            os.close(folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        number = error.errno if isinstance(error, OSError) else None
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise _cannot_write(path, why, number) from error


def _refuse_others(path: Path, folder: int) -> None:
    if path.name in ("", ".", ".."):
        raise _cannot_write(path, "it is a folder")
    try:
        kind = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(kind):
        what = "a link" if stat.S_ISLNK(kind) else "a folder" if stat.S_ISDIR(kind) else "no regular file"
        raise _cannot_write(path, f"it is there and is {what}")


def _replace(name: str, folder: int, data: bytes) -> None:
    scratch = f".mdevdisplay-{secrets.token_hex(8)}"
    fd = os.open(scratch, _CREATE, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        # a link that appeared there in the meantime is replaced, not followed
        os.rename(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch, dir_fd=folder)
        raise


def _cannot_write(path: Path, why: str, number: int | None = None) -> MdevDisplayError:
    return MdevDisplayError(
        f"cannot write {str(path)!r}: {why}",
        hint="name a file in a folder that you may write to",
        cause="cannot-write",
        errno=number,
    )
