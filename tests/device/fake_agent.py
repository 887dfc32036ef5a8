"""An agent that does something else from some request on.   fake_agent.py AGENT FAULT [REQUEST [AFTER]]

It is the real one (the file AGENT) until it was asked REQUEST (any by default) more than AFTER times (0 by default).
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

# Whoever imports one of these from here on fails.
sys.modules |= dict.fromkeys(("torch", "edgewright"))  # type: ignore[arg-type]
place, fault, *rest = sys.argv[1:]
spec = importlib.util.spec_from_file_location("agent", place)
assert spec and spec.loader
agent: Any = importlib.util.module_from_spec(spec)
sys.modules["agent"] = agent
spec.loader.exec_module(agent)


def dies(*_) -> bytes:
    print("out of memory, said somebody", file=sys.stderr)
    sys.stderr.flush()
    os._exit(3)


def hangs(*_) -> bytes:
    time.sleep(600)
    return b""


def times(value: float, more: int = 0):
    """As many times as were asked for, and some more, all of one value."""

    def answer(request, *_) -> bytes:
        counts = [request.get("most", 6) + more] * len(request["sizes"])
        return agent.packed({"counts": counts}, np.full(sum(counts), value).tobytes())

    return answer


def said(header: Any, body: bytes = b""):
    return lambda *_: agent.packed(header, body)


def half(request, body, tick) -> bytes:
    """Half of the answer, and the end."""
    whole = real(request, body, tick)
    sink.write(whole[: len(whole) // 2])
    sink.flush()
    os._exit(0)


def ticks(*_) -> bytes:
    """Signs of life without end."""
    while True:
        sink.write(agent.packed({"tick": 1}))


def facts(**changes):
    return lambda *_: agent.packed({"agent": agent.VERSION, "facts": agent.facts() | changes})


DEEP = b"[" * 100_000
FAULTS: dict[str, Any] = {
    "none": None,
    "dies": dies,
    "hangs": hangs,
    "half": half,
    "ticks": ticks,
    "greets": lambda *_: b"Welcome to Board OS 12! Last login: never\n",
    "no json": lambda *_: agent.FRAME.pack(agent.MAGIC, 9, 0) + b"{'a': 1}\n",
    "deep": lambda *_: agent.FRAME.pack(agent.MAGIC, len(DEEP), 0) + DEEP,
    "endless": lambda *_: agent.FRAME.pack(agent.MAGIC, 2, 1 << 60) + b"{}",
    "a list": lambda *_: agent.FRAME.pack(agent.MAGIC, 2, 0) + b"[]",
    "another shape": said({"counts": "many"}),
    "short": said({"counts": [20, 20]}, b"12345678"),
    "below 0": said({"counts": [-1, 21]}, np.ones(20).tobytes()),
    "too few": said({"counts": [20]}, np.ones(20).tobytes()),
    "nan": times(np.nan),
    "zero": times(0.0),
    "more runs": times(1.0, 1000),
    "failed": said({"failed": "No space left on device"}),
    "old": said({"agent": 0, "facts": {}}),
    "newer runtime": facts(runtime_version="99.1"),
    "no version": facts(runtime_version=""),
    "strange": facts(cpuinfo="model name: A\x1b[31m" + "B" * 5000),
    "ticks slowly": None,
    "an object": said({"outputs": [{"name": "y", "type": "|O", "shape": [1]}]}, bytes(8)),
    "a shape": said({"outputs": [{"name": "y", "type": "<f4", "shape": [-1, -2]}]}, bytes(8)),
}
real, asked = agent._answered, 0
wanted, after = (rest[0] if rest else None), int(rest[1]) if len(rest) > 1 else 0


def answered(request, body, tick) -> bytes:
    global asked
    asked += wanted in (None, request["do"])
    if FAULTS[fault] is not None and wanted in (None, request["do"]) and asked > after:
        return FAULTS[fault](request, body, tick)
    return real(request, body, tick)


agent._answered = answered
if fault == "ticks slowly":
    agent.TICK_SECONDS = 0.1
sink = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
print("what a library prints does no harm")
agent.serve(sys.stdin.buffer, sink)
if "EDGEWRIGHT_MODULES" in os.environ:
    loaded = [name for name, module in sys.modules.items() if module is not None]
    Path(os.environ["EDGEWRIGHT_MODULES"]).write_text(json.dumps(loaded))
