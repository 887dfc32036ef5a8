"""Where devices of the user's own are kept."""

import os
from pathlib import Path


def devices_folder() -> Path:
    """Where added devices are kept: EDGEWRIGHT_DEVICES, else ~/.config/edgewright/devices. Not the cache: what was
    measured by hand is not lost with it."""
    return Path(os.environ.get("EDGEWRIGHT_DEVICES") or Path.home() / ".config" / "edgewright" / "devices")
