"""Files that appear whole or not at all."""

import contextlib
import errno
import hashlib
import os
import tempfile
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
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)
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
