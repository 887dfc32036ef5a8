"""What must run where the network runs: the measuring protocol, the runtime's profiler, the system's words for itself.

This machine's own device (`here/cpu.py`) calls these functions, so that there is one protocol, wherever it runs. The
file needs Python 3.7, NumPy and ONNX Runtime, and imports nothing of this package: it alone can be given to another
machine. Run as a program it answers what it is asked on its standard input (`remote.py` asks), until that ends.

    frame = "edgw", bytes of the header (u32) and of the body (u64), big-endian; the header, JSON; the body, raw bytes

A request says what to `do`, and in `sizes` how its body is divided into files and arrays. Its answer is one frame;
frames before it with a growing `tick` say that the work goes on. What cannot be run is answered with `refused`, what
went wrong with `failed`, a sentence each. Times are float64, counts of bytes int64, little-endian.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Sequence, Tuple

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it would write an id of the machine, and upload events
import onnxruntime as ort

BURST = 10  # runs of one network before the next one's turn: a steady caller's caches, not a stranger's
REFERENCE_BURST = 5
MOST_PROFILED = 40  # runs: a profile is a text of some 600 bytes per node and run
Call = Callable[[], object]
Clock = Callable[[], int]
Tick = Callable[[], None]
NUMBERS = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(bool)": np.bool_,
    "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(int16)": np.int16, "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32, "tensor(uint32)": np.uint32, "tensor(int64)": np.int64, "tensor(uint64)": np.uint64,
}  # fmt: skip


# ---- networks ----


def feed_for(session: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Something for every input: normal numbers, zeros where they are whole (a valid index everywhere); free
    dimensions become 1.   Errors: ValueError for an input that is no tensor of numbers."""
    random = np.random.default_rng(seed)
    found = {}
    for given in session.get_inputs():
        if given.type not in NUMBERS:
            raise ValueError(f"the model's input '{given.name}' is {given.type}; only numbers can be measured")
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in given.shape]
        kind = np.dtype(NUMBERS[given.type])
        drawn = random.standard_normal(shape, dtype=np.float32) if kind.kind == "f" else np.zeros(shape)
        found[given.name] = drawn.astype(kind)
    return found


def caller(session: Any) -> Call:
    """One run of the network as a user would call it: arrays in, arrays out; an IO binding would save about 5 us."""
    feed = feed_for(session)
    return lambda: session.run(None, feed)


# ---- the protocol ----


def nothing() -> None:
    """The tick of who waits for nothing."""


def timed(call: Call, count: int, clock: Clock, tick: Tick = nothing) -> list[float]:
    """`count` timed runs, ms each; `tick` is called between runs, outside their time."""
    times = []
    for _ in range(count):
        before = clock()
        call()
        times.append((clock() - before) / 1e6)
        tick()
    return times


def warm_up(call: Call, clock: Clock, tick: Tick = nothing, least_ms: float = 30, most_ms: float = 1000) -> None:
    """Run until three runs in a row bring no new best by more than 2 % and `least_ms` have passed."""
    start, best, stale = clock(), float("inf"), 0
    for _ in range(10_000):
        (took,) = timed(call, 1, clock, tick)
        stale = 0 if took < 0.98 * best else stale + 1
        best = min(best, took)
        passed_ms = (clock() - start) / 1e6
        if (stale >= 3 and passed_ms >= least_ms) or passed_ms >= most_ms:
            return


def in_turns(
    calls: Sequence[Call],
    reference: Call,
    most: int,
    fewest: int,
    seconds: float,
    clock: Clock = time.perf_counter_ns,
    tick: Tick = nothing,
) -> tuple[list[list[float]], list[float]]:
    """The protocol: warm up, then bursts of each call with the reference after each; ms of each, and the reference's.

    most: runs of each.   fewest: runs of each, even where they take longer than `seconds`.
    """
    for call in (*calls, reference):
        warm_up(call, clock, tick)
    samples: list[list[float]] = [[] for _ in calls]
    beside: list[float] = []
    start, burst = clock(), min(BURST, max(1, most))
    while len(samples[0]) < fewest or (len(samples[0]) < most and clock() - start < seconds * 1e9):
        for number, call in enumerate(calls):
            samples[number] += timed(call, burst, clock, tick)
            beside += timed(reference, REFERENCE_BURST, clock, tick)
    return samples, beside


@contextlib.contextmanager
def pinned(threads: int = 1) -> Iterator[None]:
    """Keep this process on the idlest core it may use meanwhile; nothing for several threads or where not possible."""
    allowed = os.sched_getaffinity(0) if threads == 1 and hasattr(os, "sched_setaffinity") else set()
    if len(allowed) < 2:
        yield
        return
    os.sched_setaffinity(0, {_idlest(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _idlest(cores: set[int], seconds: float = 0.02) -> int:
    """The core with the least work during a short look at /proc/stat; any where there is none."""
    try:
        before = _busy_ticks()
        time.sleep(seconds)
        after = _busy_ticks()
    except (OSError, ValueError):
        return max(cores)
    # On a tie the core is drawn by process, so that two measuring processes do not always meet.
    return min(cores, key=lambda core: (after.get(core, 0) - before.get(core, 0), (core + os.getpid()) % len(cores)))


def _busy_ticks() -> dict[int, int]:
    ticks = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks[int(name[3:])] = sum(map(int, fields[:3]))  # user, nice, system
    return ticks


# ---- the runtime's own profiler ----


def profiled(opened: Callable[[str], Any], seconds: float, runs: int, tick: Tick = nothing) -> dict[str, Any]:
    """What the runtime's profiler says of at least `runs` runs and `seconds`, at most MOST_PROFILED runs.

    opened: a path's beginning -> a session that profiles into such a file.
    Returns: "names" of one run's nodes in order; "reader": the first node whose first input is of the network's input's
    shape; "input_bytes"; by run and node "micros", and where the runtime says so "held", "grown": bytes of its
    allocator when the node was done, and by how much the node changed them.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = opened(str(Path(folder) / "profile"))
        feed = feed_for(session)
        start, count = time.perf_counter(), 0
        while count < runs or (time.perf_counter() - start < seconds and count < MOST_PROFILED):
            session.run(None, feed)
            count += 1
            tick()
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    found = _by_run(nodes, [{"float": list(array.shape)} for array in feed.values()])
    found["input_bytes"] = sum(array.nbytes for array in feed.values())
    return found


def _by_run(nodes: list[dict[str, Any]], inputs: list[dict[str, list[int]]]) -> dict[str, Any]:
    if not nodes:
        raise ValueError("the runtime's profile of it is empty")
    first = nodes[0]["name"]
    starts = [index for index, node in enumerate(nodes) if node["name"] == first]
    count = starts[1] if len(starts) > 1 else len(nodes)
    runs = [nodes[start : start + count] for start in starts]
    whole = [run for run in runs if len(run) == count]
    readers = (index for index, node in enumerate(whole[0]) if _first_input(node) in inputs)
    found = {
        "names": [node["name"] for node in whole[0]],
        "reader": next(readers, 0),
        "micros": [[node["dur"] for node in run] for run in whole],
    }
    if "mem_bytes_requested_in_use" in nodes[0].get("args", {}):
        for name, key in (("held", "mem_bytes_requested_in_use"), ("grown", "mem_requested_in_use_delta")):
            found[name] = [[int(node["args"][key]) for node in run] for run in whole]
    return found


def _first_input(node: dict[str, Any]) -> Any:
    return next(iter(node.get("args", {}).get("input_type_shape", [])), None)


# ---- what processor this is ----


def facts(system: Path = Path("/sys/devices/system/cpu")) -> dict[str, Any]:
    """The system's own words for what latency here depends on, as they are; `device/processor.py` makes sense of them.

    "cpuinfo": of /proc.   "board": of the device tree.   "system": the processor, where neither is there.   "cores".
    "caches": level and size of each that holds data.   "khz": the highest clock of each core.   "runtime",
    "runtime_version": what runs networks here.
    """
    caches = []
    for place in sorted(system.glob("cpu[0-9]*/cache/index[0-9]*")):
        level, size, kind = (_read(place / name).strip() for name in ("level", "size", "type"))
        if level and size and kind != "Instruction":
            caches.append([level, size])
    clocks = sorted(system.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq"))
    return {
        "cpuinfo": _read("/proc/cpuinfo"),
        "board": _read("/proc/device-tree/model"),
        "system": _of_the_system(),
        "cores": os.cpu_count() or 1,
        "caches": caches,
        "khz": [_read(place).strip() for place in clocks],
        "runtime": "onnxruntime",
        "runtime_version": ort.__version__,
    }


def _of_the_system() -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if platform.system() == "Darwin":
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            name = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            if name:
                return name
    return platform.processor() or platform.machine()


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


# ---- the wire ----

VERSION = 1  # of what is said on it
FRAME = struct.Struct(">4sIQ")
MAGIC = b"edgw"
TICK_SECONDS = 1.0  # that the work goes on is said so often
Header = Dict[str, Any]
Answer = Tuple[Header, bytes]


def packed(header: Header, body: bytes = b"") -> bytes:
    """A frame."""
    text = json.dumps(header).encode()
    return FRAME.pack(MAGIC, len(text), len(body)) + text + body


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while True:
        start = source.read(FRAME.size)
        if len(start) < FRAME.size:
            return
        magic, header_bytes, body_bytes = FRAME.unpack(start)
        header, body = source.read(header_bytes), source.read(body_bytes)
        if magic != MAGIC or len(header) + len(body) < header_bytes + body_bytes:
            return
        sink.write(_answered(json.loads(header), body, _ticking(sink)))
        sink.flush()


def _answered(request: Header, body: bytes, tick: Tick) -> bytes:
    try:
        parts, start = [], 0
        for size in request.get("sizes", ()):
            parts.append(body[start : start + size])
            start += size
        return packed(*ANSWERS[request["do"]](request, parts, tick))
    except Exception as error:  # whatever it is, the other side must hear of it
        told = " ".join(str(error).split())[:400] or type(error).__name__
        mine = isinstance(error, ValueError) or type(error).__module__.startswith("onnxruntime")
        return packed({"refused" if mine else "failed": told})


def _ticking(sink: BinaryIO) -> Tick:
    said, count = [time.monotonic()], [0]

    def tick() -> None:
        count[0] += 1
        if time.monotonic() - said[0] > TICK_SECONDS:
            said[0] = time.monotonic()
            sink.write(packed({"tick": count[0]}))
            sink.flush()

    return tick


def open_session(model: bytes, threads: int, profile_prefix: str | None = None) -> ort.InferenceSession:
    """As `here/runtime.py` opens one."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    if profile_prefix:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _hello(request: Header, parts: list[bytes], tick: Tick) -> Answer:
    return {"agent": VERSION, "facts": facts()}, b""


def _run(request: Header, parts: list[bytes], tick: Tick) -> Answer:
    """Of one network all outputs for given inputs: `inputs` has the name, type and shape of each."""
    session = open_session(parts[0], request["threads"])
    given = zip(request["inputs"], parts[1:])
    feed = {told["name"]: np.frombuffer(part, told["type"]).reshape(told["shape"]) for told, part in given}
    arrays: list[tuple[str, Any]] = list(zip((made.name for made in session.get_outputs()), session.run(None, feed)))
    told = [{"name": name, "type": array.dtype.str, "shape": array.shape} for name, array in arrays]
    return {"outputs": told}, b"".join(array.tobytes() for _, array in arrays)


def _measure(request: Header, parts: list[bytes], tick: Tick) -> Answer:
    """The protocol on all networks but the last, which is the reference."""
    threads = request["threads"]
    with pinned(threads):
        *calls, reference = [caller(open_session(part, threads)) for part in parts]
        limits = (request["most"], request["fewest"], request["seconds"])
        times, beside = in_turns(calls, reference, *limits, tick=tick)
    return _told([*times, beside])


def _told(times: list[list[float]]) -> Answer:
    return {"counts": [len(one) for one in times]}, b"".join(np.array(one, "<f8").tobytes() for one in times)


def _profile(request: Header, parts: list[bytes], tick: Tick) -> Answer:
    opened = functools.partial(open_session, parts[0], request["threads"])
    with pinned(request["threads"]):
        found = profiled(opened, request["seconds"], request["runs"], tick)
    arrays = [np.array(found.pop("micros"), "<f8")]
    arrays += [np.array(found.pop(name), "<i8") for name in ("held", "grown") if name in found]
    header = {**found, "runs": len(arrays[0]), "memory": len(arrays) > 1}
    return header, b"".join(array.tobytes() for array in arrays)


ANSWERS = {"hello": _hello, "run": _run, "measure": _measure, "profile": _profile}


def main() -> None:
    """Answer on what was standard output; what libraries print goes to standard error from here on."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
