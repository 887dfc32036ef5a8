"""Durable records a second of the study, one commit each, on the disk of the current folder."""

import tempfile
import time
from pathlib import Path

from edgewright.core.cost import cost
from edgewright.core.study import Candidate, Study

COUNT = 3000


def main() -> None:
    costs = {name: cost(name, 1.5, "table") for name in ("latency", "size", "peak_memory", "macs", "params")}
    architecture = {"space": "mobile", "stages": [{"width": 32, "depth": 2, "kernel": 3, "expansion": 4}] * 5}
    with tempfile.TemporaryDirectory(dir=".") as folder, Study(Path(folder) / "study.db") as study:
        began = time.perf_counter()
        for index in range(COUNT):
            study.record(Candidate(key=str(index), architecture=architecture, costs=costs, scores={"zico": 1.0}))
        print(f"{COUNT / (time.perf_counter() - began):.0f} durable records a second")


if __name__ == "__main__":
    main()
