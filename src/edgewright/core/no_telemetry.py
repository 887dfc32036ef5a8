"""Nothing is told to anybody: what other libraries would send home is switched off before they are imported.

ONNX Runtime 1.29 and later writes an id of the machine and a queue of events into the home, and uploads them, unless a
variable says no before its import. OpenVINO sends an event each time it is imported, and knows no variable for it.
"""

import importlib
import os
import sys
from types import ModuleType

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # the hub that timm's weights come from
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FLWR_TELEMETRY_ENABLED": "0",
    "DO_NOT_TRACK": "1",  # what several libraries ask
}


def switch_off() -> None:
    """For this process and those that it starts; `import edgewright` does it first of all."""
    os.environ.update(SWITCHES)


def imported_without(reporter: str, library: str) -> ModuleType:
    """A library that does without its module `reporter`, which it imports to report by, if that is not there."""
    if library in sys.modules:
        return sys.modules[library]
    before = sys.modules.get(reporter)
    sys.modules[reporter] = None  # pyright: ignore[reportArgumentType] # so Python is told that it is not there
    try:
        return importlib.import_module(library)
    finally:
        del sys.modules[reporter]
        if before is not None:
            sys.modules[reporter] = before
