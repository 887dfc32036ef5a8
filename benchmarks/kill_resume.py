"""Kill the main job at random moments with SIGKILL, resume it, and hold it against the uninterrupted run.

    python benchmarks/kill_resume.py --kills 20

Checks, each time: resume finishes; every candidate that was in the study at the kill is still there, with the same
scores; none was scored twice; candidates, scores, chosen network and test accuracy equal the uninterrupted run's.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgewright.core.data import read_json
from edgewright.core.study import Study

PLAN = ["--task", "digits", "--macs", "3e5", "--candidates", "64", "--finalists", "3", "--epochs", "8", "--quiet"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "edgewright", "design", *arguments]


def candidates(out: Path) -> list[tuple[str, dict[str, float]]]:
    if not (out / "study.db").exists():
        return []
    with Study(out / "study.db") as study:
        return [(candidate.key, candidate.scores) for candidate in study.candidates()]


def outcome(out: Path) -> tuple:
    result = read_json(out / "result.json")
    return result["key"], result["metrics"], candidates(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp(prefix="edgewright-kill-"))
    subprocess.run(command(*PLAN, "--out", str(folder / "warm")), check=True, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    subprocess.run(command(*PLAN, "--out", str(folder / "whole")), check=True, stdout=subprocess.DEVNULL)
    whole, seconds = outcome(folder / "whole"), time.monotonic() - began
    print(f"uninterrupted: {seconds:.1f} s, {len(whole[2])} candidates, test {whole[1]['test']['accuracy']:.2f} %")
    faults = 0
    for kill in range(args.kills):
        out = folder / f"kill-{kill}"
        after = moments.uniform(0, seconds)
        with subprocess.Popen(command(*PLAN, "--out", str(out)), stdout=subprocess.DEVNULL) as process:
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
        before = candidates(out)
        # Killed before the plan was written, there is nothing to resume: the same command begins.
        again = command("--resume", str(out)) if (out / "plan.yaml").exists() else command(*PLAN, "--out", str(out))
        finished = subprocess.run(again, stdout=subprocess.DEVNULL)
        kept = finished.returncode == 0 and candidates(out)[: len(before)] == before
        equal = finished.returncode == 0 and outcome(out) == whole
        faults += not (kept and equal)
        print(
            f"kill {kill + 1:2d} after {after:5.1f} s, {len(before):3d} candidates: kept {kept}, equal {equal}",
            flush=True,
        )
    shutil.rmtree(folder)
    print(f"{args.kills} kills, {faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
