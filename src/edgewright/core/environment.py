"""What a run ran on: versions and machine, for env.json and the result."""

import importlib.metadata
import os
import platform

LIBRARIES = ("edgewright", "torch", "numpy", "onnx", "onnxscript", "onnxruntime", "scikit-learn")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, object]:
    """Versions, operating system, processor and cores; no names of people, hosts or folders."""
    return {
        "versions": versions(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
