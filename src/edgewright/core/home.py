"""The one place that asks for a home: where edgewright keeps things, and what ~ means in a path that a user gives.

A container may run as a user that has neither HOME nor an entry in passwd, or whose home cannot be written.
"""

import functools
import os
import tempfile
from pathlib import Path

from edgewright.core.errors import BadInput
from edgewright.core.progress import say


def user_path(text: str | Path) -> Path:
    """A path as a person writes it, with ~ filled in. Errors: BadInput for the home of somebody who has none."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise BadInput(f"{text}: there is no such home folder here; write the whole path") from None


def cache_folder() -> Path:
    """Where measured tables are kept: EDGEWRIGHT_CACHE, else ~/.cache/edgewright, else a temporary folder, with one
    line to say so."""
    asked = os.environ.get("EDGEWRIGHT_CACHE")
    return Path(asked) if asked else _cache_in(_home())


def devices_folder() -> Path:
    """Where devices of the user's own are kept: EDGEWRIGHT_DEVICES, else ~/.config/edgewright/devices. Not the cache:
    what was measured by hand is not lost with it. Errors: BadInput where there is no home."""
    folder = _devices()
    if folder is None:
        raise BadInput("this user has no home folder to keep devices in; set EDGEWRIGHT_DEVICES to a folder")
    return folder


def kept_devices(ending: str) -> list[Path]:
    """Files with that ending in `devices_folder()`, by name; none where there is no home, or it cannot be read."""
    folder = _devices()
    return [] if folder is None else sorted(folder.glob(f"*{ending}"))


def _devices() -> Path | None:
    asked, home = os.environ.get("EDGEWRIGHT_DEVICES"), _home()
    if asked:
        return Path(asked)
    return None if home is None else home / ".config" / "edgewright" / "devices"


def _home() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None  # HOME may say anything


@functools.cache
def _cache_in(home: Path | None) -> Path:
    if home is not None and _can_be_written(home / ".cache" / "edgewright"):
        return home / ".cache" / "edgewright"
    found = _temporary()
    why = "there is no home folder" if home is None else f"{home} cannot be written"
    say(f"{why}: measured latencies are kept in {found}; set EDGEWRIGHT_CACHE to keep them elsewhere")
    return found


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _temporary() -> Path:
    """The same for every process of this user, unless somebody else holds the name."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    folder = Path(tempfile.gettempdir()) / f"edgewright-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        held = folder.lstat()
        own = not folder.is_symlink() and (not hasattr(os, "getuid") or held.st_uid == os.getuid())
    except OSError:
        own = False
    return folder if own and _can_be_written(folder) else Path(tempfile.mkdtemp(prefix="edgewright-"))
