"""Files that appear whole or not at all."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgewright.core.errors import DiskFull, EdgewrightError

NO_ROOM = 2**16  # bytes left on a disk that is taken to be full


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    On any error the temporary file is removed and `path` stays as it was.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _beside(path)
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # safetensors puts a file of its own in the place, which nobody else may read
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except Exception as error:
        if _says_full(error):
            raise DiskFull(f"{path}: the disk is full; free some space, then resume or start again") from None
        if isinstance(error, OSError) and error.strerror and not error.filename:  # a write does not know its file
            raise EdgewrightError(f"{path}: cannot be written ({error.strerror})") from None
        raise
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A new file of a name nobody else has, readable for whom every other file made by this user is (umask)."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return part


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is only needed meanwhile, where TMPDIR says.

    Errors: DiskFull where what was done inside failed for want of room there, whatever the library that wrote says.
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            yield folder
        except Exception as error:
            refuse_full(folder, error)
            raise


def refuse_full(folder: Path, error: Exception) -> None:
    """Raise DiskFull where `error` arose while something was written below `folder` and its disk is full.

    Libraries have errors of their own for it, or none, and fail at what they then read: so the disk is looked at.
    """
    if isinstance(error, DiskFull) and str(folder) not in str(error):
        raise error
    if not (isinstance(error, DiskFull) or _says_full(error) or shutil.disk_usage(folder).free < NO_ROOM):
        return
    meanwhile = Path(tempfile.gettempdir())
    if folder.is_relative_to(meanwhile):
        remedy = "free some space there, or name another folder for temporary files with TMPDIR"
        raise DiskFull(f"{meanwhile}: the disk is full; {remedy}") from None
    raise DiskFull(f"{folder}: the disk is full; free some space there") from None


def _says_full(error: Exception) -> bool:
    # The Rust half of safetensors gives the number in the text of an error of its own.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or f"(os error {errno.ENOSPC})" in str(error)


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as part:
        part.write_text(text)


def write_bytes(path: Path, data: bytes) -> None:
    with written_whole(path) as part:
        part.write_bytes(data)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
