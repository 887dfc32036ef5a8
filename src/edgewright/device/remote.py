"""A device behind a pipe: another process, on this machine or farther away, that runs networks and times them there.

The other side is `agent.py` (its docstring describes the frames), or any program that speaks as it does. It is asked by
one request at a time and believed in nothing: what it answers is bounded, checked field by field, and never executed. A
side that ends, answers otherwise, or says nothing for too long is a `DeviceLost`, and is not asked again.
"""

import contextlib
import json
import math
import os
import selectors
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import monotonic
from typing import IO, Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput, DeviceLost
from edgewright.device.agent import BURST, FRAME, MAGIC, VERSION, packed
from edgewright.device.base import Can, Device
from edgewright.device.measure import Artifact, Latency, Model, Runs, as_artifact, reference_model
from edgewright.device.processor import processor
from edgewright.device.profile import Profile

PATIENCE = 30.0  # seconds without a word, and so many more for each MB that must be sent, opened and run
PATIENCE_PER_MB = 5.0
MOST_HEADER, MOST_BODY = 4 << 20, 256 << 20  # bytes of an answer
MOST_TICKS = 20_000  # of one answer: hours
MOST_SAID = 300  # characters of what it says that are shown, and kept
TIME, BYTES = np.dtype("<f8"), np.dtype("<i8")
NUMBERS = {"<f2", "<f4", "<f8", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "|b1"}
Answer = tuple[dict[str, Any], bytes]
Kind = TypeVar("Kind", bound=Frozen)


class Facts(Frozen):
    """What the other side says of itself (`agent.facts`)."""

    cpuinfo: str
    board: str
    system: str
    cores: int = Field(ge=1, le=100_000)
    caches: list[tuple[str, str]]
    khz: list[Annotated[str, Field(max_length=20)]]
    runtime: str
    runtime_version: str = Field(min_length=1)


class Hello(Frozen):
    """agent: version of what is said on the wire."""

    agent: int
    facts: Facts


class Counts(Frozen):
    """How many times there are of each network."""

    counts: list[int]


class Profiled(Frozen):
    """See `agent.profiled`. runs: whole ones.   memory: whether the allocator's bytes follow the times."""

    names: list[str] = Field(min_length=1)
    reader: int = Field(ge=0)
    input_bytes: int = Field(ge=0)
    runs: int = Field(ge=1)
    memory: bool


class Array(Frozen):
    name: str
    type: str
    shape: list[int]


class Outputs(Frozen):
    outputs: list[Array]


class Remote(Device):
    """A device that is asked over a pipe. command: the program on the other side; it is started when it is first asked
    something, and ends with this process."""

    can: frozenset[Can] = frozenset({"measure", "predict", "peak_memory"})

    def __init__(self, name: str, command: Sequence[str], threads: int = 1) -> None:
        if threads < 1:
            raise BadInput(f"threads must be at least 1 (got {threads})")
        self.name, self.threads = name, threads
        self._wire = Wire(name, command)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, **self._there, "threads": self.threads}

    @cached_property
    def _there(self) -> dict[str, Any]:
        header, _ = self._wire.ask("what it is", {"do": "hello"})
        if (version := header.get("agent")) != VERSION:
            raise self._wire.lost(f"speaks version {version!r} of the protocol, not {VERSION} (give it this agent)")
        found = processor(self._read(Hello, header).facts.model_dump())
        return {word: _shown(value) if isinstance(value, str) else value for word, value in found.items()}

    def opens(self, runtime: str) -> bool:
        return runtime == self._there["runtime"]

    def take_turns(self, artifacts: Sequence[Artifact], runs: Runs) -> list[Latency]:
        request = {"do": "measure", "most": runs.most, "fewest": runs.fewest, "seconds": runs.seconds}
        *times, beside = self._times(request, [*map(_bytes, artifacts), reference_model()])
        count = len(times[0])
        if any(len(one) != count for one in times) or not runs.fewest <= count < max(runs.most, runs.fewest) + BURST:
            raise self._wire.rubbish(f"{count} runs where {runs.most} were asked for")
        return [Latency.of(one, beside) for one in times]

    def profile(self, model: Model, *, seconds: float = 0.03, runs: int = 6) -> Profile:
        request = {"do": "profile", "seconds": seconds, "runs": runs}
        header, body = self._ask("for the profile of a network", request, [_bytes(as_artifact(model))])
        found = self._read(Profiled, header)
        shape = (found.runs, len(found.names))
        times, *memory = self._arrays(body, [(TIME, shape), *[(BYTES, shape)] * (2 * found.memory)])
        if found.reader >= shape[1] or found.runs < runs or (times < 0).any():
            raise self._wire.rubbish(f"a profile of {found.runs} runs of {shape[1]} nodes")
        return Profile(tuple(found.names), times, found.reader, found.input_bytes, *memory)

    def run(self, model: Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs of a network, by name, as they are computed there."""
        told = [{"name": name, "type": array.dtype.str, "shape": array.shape} for name, array in inputs.items()]
        files = [_bytes(as_artifact(model)), *(array.tobytes() for array in inputs.values())]
        header, body = self._ask("to run a network", {"do": "run", "inputs": told}, files)
        found = self._read(Outputs, header).outputs
        if strange := [one.type for one in found if one.type not in NUMBERS]:
            raise self._wire.rubbish(f"an array of {strange[0]}")
        arrays = self._arrays(body, [(np.dtype(one.type), tuple(one.shape)) for one in found], finite=False)
        return {one.name: array for one, array in zip(found, arrays, strict=True)}

    def _ask(self, what: str, request: dict[str, Any], files: Sequence[bytes]) -> Answer:
        request = {**request, "threads": self.threads, "sizes": [len(file) for file in files]}
        return self._wire.ask(what, request, b"".join(files))

    def _times(self, request: dict[str, Any], files: Sequence[bytes]) -> list[list[float]]:
        header, body = self._ask(f"for the times of {len(files)} networks", request, files)
        counts = self._read(Counts, header).counts
        if len(counts) != len(files) or min(counts) < 1:
            raise self._wire.rubbish(f"times of {len(counts)} networks")
        arrays = self._arrays(body, [(TIME, (count,)) for count in counts])
        if any((array <= 0).any() for array in arrays):
            raise self._wire.rubbish("a time that is not above 0")
        return [array.tolist() for array in arrays]

    def _arrays(
        self, body: bytes, wanted: Sequence[tuple[np.dtype, tuple[int, ...]]], finite: bool = True
    ) -> list[np.ndarray]:
        """The body divided into arrays of such types and shapes."""
        sizes = [kind.itemsize * math.prod(shape) for kind, shape in wanted]
        if sum(sizes) != len(body) or any(side < 0 for _, shape in wanted for side in shape):
            raise self._wire.rubbish(f"{len(body)} bytes where {sum(sizes)} were announced")
        arrays, start = [], 0
        for (kind, shape), size in zip(wanted, sizes, strict=True):
            arrays.append(np.frombuffer(body[start : start + size], kind).reshape(shape))
            start += size
        if finite and not all(np.isfinite(array).all() for array in arrays):
            raise self._wire.rubbish("a number that is not finite")
        return arrays

    def _read(self, kind: type[Kind], header: dict[str, Any]) -> Kind:
        try:
            return kind.model_validate(header)
        except ValidationError as error:
            first = error.errors()[0]
            raise self._wire.rubbish(f"'{'.'.join(map(str, first['loc']))}': {first['msg']}") from None


@dataclass
class Side:
    """The program on the other side, and the pipes to it. said: the end of what it wrote to standard error."""

    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]
    errors: IO[bytes]
    said: bytes = b""

    @classmethod
    def begun(cls, command: Sequence[str]) -> "Side":
        """In a session of its own, as an interrupt from the keyboard is for this process to handle."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        assert process.stdin and process.stdout and process.stderr
        for one in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(one.fileno(), False)
        return cls(process, process.stdin, process.stdout, process.stderr)

    def ready(self, pipe: IO[bytes], event: int, until: float) -> bool:
        """Wait for a pipe; what is written to standard error meanwhile is kept."""
        while (left := until - monotonic()) > 0:
            with selectors.DefaultSelector() as waiting:
                waiting.register(pipe, event)
                if not self.errors.closed:
                    waiting.register(self.errors, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in waiting.select(left)]
            if self.errors in ready:
                self.listen()
            if pipe in ready:
                return True
        return False

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            part = os.read(self.errors.fileno(), 1 << 16)
            self.said = (self.said + part)[-8 * MOST_SAID :]
            if not part:
                self.errors.close()

    def last_words(self) -> str:
        """Of one that has ended: its exit code, and its last line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)
        if not self.errors.closed:
            self.listen()
        lines = self.said.decode(errors="replace").strip().splitlines()
        return "; ".join([f"exit code {self.process.poll()}", *map(_shown, lines[-1:])])

    def finish(self, patience: float = 2.0) -> None:
        """Without requests it ends by itself; else it is ended."""
        for pipe in (self.requests, self.answers, self.errors):
            pipe.close()
        try:
            self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Wire:
    """One request at a time, one answer to each.   Errors: DeviceLost, from then on to every request; BadInput for what
    the other side refuses to run, which leaves it as it was."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name, self.command = name, tuple(command)
        self._side: Side | None = None
        self._gone: DeviceLost | None = None
        self._asked, self._patience = "to begin", PATIENCE

    def ask(self, what: str, request: dict[str, Any], body: bytes = b"") -> Answer:
        """The header and body of the answer. what: in words for people, after "asked"."""
        if self._gone is not None:
            raise self._gone
        self._asked, self._patience = what, PATIENCE + PATIENCE_PER_MB * len(body) / 2**20
        try:
            side = self._begun()
            self._send(side, packed(request, body))
            header, found = self._answer(side)
        except BaseException:  # an interrupt, too: what comes next would be the answer to this
            self.lost("was interrupted")
            raise
        if "failed" in header:
            raise self.lost(f"failed ({_shown(header['failed'])})")
        if "refused" in header:
            raise BadInput(f"this network cannot be run on {self.name} ({_shown(header['refused'])})")
        return header, found

    def lost(self, how: str) -> DeviceLost:
        """The error, which is raised to every request from now on; the other side is ended."""
        if self._gone is None:
            told = f"{self.name}: asked {self._asked}, it {how}; see that it runs ({' '.join(self.command)})"
            self._gone = DeviceLost(told)
        if self._side is not None:
            self._side.finish(patience=0)
        return self._gone

    def rubbish(self, what: str) -> DeviceLost:
        return self.lost(f"answered rubbish ({_shown(what)})")

    def _begun(self) -> Side:
        if self._side is None:
            try:
                self._side = Side.begun(self.command)
            except OSError as error:
                raise self.lost(f"could not be started ({error.strerror})") from None
            weakref.finalize(self, self._side.finish)
        return self._side

    def _send(self, side: Side, data: bytes) -> None:
        left, until = memoryview(data), monotonic() + self._patience
        while left:
            self._wait(side, side.requests, selectors.EVENT_WRITE, until)
            try:
                left = left[os.write(side.requests.fileno(), left[: 1 << 20]) :]
            except BrokenPipeError:
                raise self.lost(f"ended ({side.last_words()})") from None

    def _answer(self, side: Side) -> Answer:
        last = 0
        for _ in range(MOST_TICKS):
            header, body = self._frame(side)
            if "tick" not in header:
                return header, body
            if not isinstance(header["tick"], int) or header["tick"] <= last:
                raise self.rubbish("a tick that does not grow")
            last = header["tick"]
        raise self.rubbish(f"{MOST_TICKS} ticks and no end")

    def _frame(self, side: Side) -> Answer:
        until = monotonic() + self._patience
        start = self._receive(side, FRAME.size, until)
        magic, header_bytes, body_bytes = FRAME.unpack(start)
        if magic != MAGIC:
            raise self.rubbish(f"{start!r} where a frame begins")
        if header_bytes > MOST_HEADER or body_bytes > MOST_BODY:
            raise self.rubbish(f"a frame of {header_bytes} and {body_bytes} bytes")
        text = self._receive(side, header_bytes, until)
        try:
            header = json.loads(text)
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            raise self.rubbish(f"no JSON object: {text[:40]!r}")
        return header, self._receive(side, body_bytes, until)

    def _receive(self, side: Side, count: int, until: float) -> bytes:
        found = bytearray()
        while len(found) < count:
            self._wait(side, side.answers, selectors.EVENT_READ, until)
            part = os.read(side.answers.fileno(), min(1 << 20, count - len(found)))
            if not part:
                raise self.lost(f"ended ({side.last_words()})")
            found += part
        return bytes(found)

    def _wait(self, side: Side, pipe: IO[bytes], event: int, until: float) -> None:
        if not side.ready(pipe, event, until):
            raise self.lost(f"said nothing for {self._patience:.3g} seconds")


def _bytes(artifact: Artifact) -> bytes:
    if isinstance(artifact.file, bytes):
        return artifact.file
    if not artifact.file.is_file():
        raise BadInput(f"{artifact.file}: no such file")
    return artifact.file.read_bytes()


def _shown(value: object) -> str:
    """In one line, without what could not be printed, and not endless."""
    return "".join(char for char in str(value) if char.isprintable())[:MOST_SAID]
