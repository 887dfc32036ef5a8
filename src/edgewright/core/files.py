"""Files that appear whole or not at all."""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from edgewright.core.errors import EdgewrightError


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
        if _is_full(error):
            raise EdgewrightError(f"{path}: the disk is full; free some space, then resume or start again") from None
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


def _is_full(error: Exception) -> bool:
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
