"""A device behind a pipe: it measures as this machine does, and whatever it does instead is one sentence."""

import gc
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import BadInput, DeviceLost
from edgewright.device import agent, remote
from edgewright.device.here.runtime import open_session
from edgewright.device.measure import Artifact, Runs
from edgewright.device.remote import Remote
from edgewright.device.resolve import make_device
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.to_onnx import to_onnx

FAKE = Path(__file__).with_name("fake_agent.py")


def faulty(fault: str, request: str = "", after: int = 0, threads: int = 1) -> Remote:
    """A remote whose other side is real until it is asked `request` more than `after` times."""
    rest = (request, str(after)) if request else ()
    return Remote("far", (sys.executable, str(FAKE), agent.__file__, fault, *rest), threads)


def network(width: int, seed: int = 0) -> Graph:
    builder = GraphBuilder((3, 12, 9))
    x = builder.relu(builder.conv(0, width, 3, 2))
    builder.linear(builder.flatten(builder.global_pool(builder.conv(x, 2 * width))), 1)
    return builder.graph()


@pytest.fixture(scope="module")
def loopback() -> Remote:
    device = make_device("loopback")
    assert isinstance(device, Remote)
    return device


def test_it_is_this_machine_asked_over_a_pipe(loopback: Remote) -> None:
    here, there = make_device("cpu").identity(), loopback.identity()
    assert there == {**here, "name": "loopback"} and loopback.key != make_device("cpu").key
    assert make_device("loopback", 2).identity()["threads"] == 2
    assert loopback.opens("onnxruntime") and not loopback.opens("litert")
    with pytest.raises(BadInput, match="at least 1"):
        make_device("loopback", 0)


def test_networks_are_measured_in_turns_there(loopback: Remote, tmp_path: Path) -> None:
    (tmp_path / "wide.onnx").write_bytes(to_onnx(network(96)))
    narrow, wide = loopback.measure([to_onnx(network(4)), Artifact(tmp_path / "wide.onnx")], Runs(most=25))
    assert (narrow.how, narrow.runs, len(narrow.samples), wide.runs) == ("measured", 30, 30, 30)  # whole bursts
    assert 0 < narrow.minimum_ms <= narrow.median_ms <= narrow.p90_ms <= narrow.p99_ms
    assert wide.minimum_ms > narrow.minimum_ms and narrow.reference_ms == wide.reference_ms > 0


def test_what_is_computed_there_is_what_is_computed_here(loopback: Remote) -> None:
    model, x = to_onnx(network(6)), np.random.default_rng(0).standard_normal((1, 3, 12, 9)).astype(np.float32)
    (expected,) = open_session(model).run(None, {"input": x})
    found = loopback.run(model, {"input": x})
    assert list(found) == ["logits"] and found["logits"].shape == (1, 1)
    np.testing.assert_array_equal(found["logits"], expected)


def test_a_profile_says_there_what_it_says_here(loopback: Remote) -> None:
    model = to_onnx(network(16))
    there, here = (device.profile(model, seconds=0, runs=4) for device in (loopback, make_device("cpu")))
    assert there.names == here.names and there.micros.shape == here.micros.shape
    assert (there.reader, there.input_bytes) == (here.reader, here.input_bytes) == (0, 4 * 3 * 12 * 9)
    assert there.held_bytes() == here.held_bytes() and there.arena_bytes() == here.arena_bytes()


def test_it_has_a_latency_table_and_prices_of_its_own(loopback: Remote, tmp_path: Path) -> None:
    rng = random.Random(2)
    sampled = [network(rng.choice((4, 8, 24))) for _ in range(6)]
    model = loopback.latency_model(sampled, cache=tmp_path, seconds=1)
    assert model.device == loopback.identity() and model.how == "table"
    assert model.coverage([("all", sampled[0])]) == 1 and model.predict([("all", sampled[0])]) > 0
    here = make_device("cpu")._table(tmp_path)
    assert not here.read() and loopback._table(tmp_path).read()


def test_the_agent_needs_neither_torch_nor_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process in which importing one of them fails; what it has loaded in the end is told by itself."""
    monkeypatch.setenv("EDGEWRIGHT_MODULES", str(tmp_path / "modules.json"))
    device = faulty("none")
    device.measure([to_onnx(network(4))], Runs(most=10))
    device.profile(to_onnx(network(4)))
    device.run(to_onnx(network(4)), {"input": np.zeros((1, 3, 12, 9), np.float32)})
    assert device._wire._side is not None
    device._wire._side.finish(patience=20)
    loaded = {name.split(".")[0] for name in json.loads((tmp_path / "modules.json").read_text())}
    assert {"numpy", "onnxruntime"} <= loaded and not {"torch", "edgewright", "onnx", "pydantic"} & loaded


def test_both_open_networks_alike() -> None:
    names = ("intra_op_num_threads", "inter_op_num_threads", "execution_mode", "graph_optimization_level",
             "enable_cpu_mem_arena", "enable_mem_pattern")  # fmt: skip
    model = to_onnx(network(4))
    made = [opened(model, 2).get_session_options() for opened in (open_session, agent.open_session)]
    assert [getattr(made[0], name) for name in names] == [getattr(made[1], name) for name in names]


RUBBISH = {
    "greets": "b'Welcome to Board' where a frame begins",
    "no json": "no JSON object",
    "deep": "no JSON object",
    "endless": "a frame of 2 and 1152921504606846976 bytes",
    "a list": "no JSON object: b'\\[\\]'",
    "another shape": "'counts': Input should be a valid list",
    "short": "8 bytes where 320 were announced",
    "below 0": "times of 2 networks",
    "too few": "times of 1 networks",
    "nan": "a number that is not finite",
    "zero": "a time that is not above 0",
    "more runs": "1020 runs where 20 were asked for",
    "ticks": "a tick that does not grow",
}


@pytest.mark.parametrize(("fault", "words"), RUBBISH.items())
def test_rubbish_is_one_sentence(fault: str, words: str) -> None:
    device = faulty(fault, "measure")
    with pytest.raises(
        DeviceLost, match=rf"^far: asked for the times of 2 networks, it answered rubbish \({words}"
    ) as e:
        device.measure([to_onnx(network(4))], Runs(most=20, fewest=20))
    assert e.value.exit_code == 1 and "; see that it runs (" in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(DeviceLost, match="answered rubbish"):  # once lost it is not asked again
        device.identity()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("an object", r"an array of \|O"),
        ("a shape", "8 bytes where 8 were announced"),
    ],
)
def test_outputs_are_numbers_of_a_shape(fault: str, words: str) -> None:
    with pytest.raises(DeviceLost, match=rf"asked to run a network, it answered rubbish \({words}"):
        faulty(fault, "run").run(to_onnx(network(4)), {})


@pytest.mark.parametrize(
    ("fault", "request_", "words"),
    [
        ("dies", "measure", r"ended \(exit code 3; out of memory, said somebody\)"),
        ("half", "measure", r"ended \(exit code 0"),
        ("failed", "measure", r"failed \(No space left on device\)"),
        ("dies", "hello", r"asked what it is, it ended \(exit code 3"),
        ("old", "hello", r"asked what it is, it speaks version 0 of the protocol, not 1"),
        ("no version", "hello", r"answered rubbish \('facts.runtime_version'"),
    ],
)
def test_a_side_that_ends_or_is_another_is_one_sentence(fault: str, request_: str, words: str) -> None:
    device = faulty(fault, request_)
    with pytest.raises(DeviceLost, match=words):
        device.identity()
        device.measure([to_onnx(network(4))], Runs(most=10))


def test_it_may_die_in_the_middle_of_many_measurements(tmp_path: Path) -> None:
    device = faulty("dies", "profile", after=3)
    with pytest.raises(DeviceLost, match="asked for the profile of a network, it ended"):
        device.latency_model([network(width) for width in range(4, 12)], cache=tmp_path, seconds=30)


def test_a_program_that_is_not_there_or_cannot_begin() -> None:
    with pytest.raises(DeviceLost, match=r"^far: asked what it is, it could not be started \(No such file"):
        Remote("far", ("no-such-program-anywhere",)).identity()
    with pytest.raises(DeviceLost, match=r"ended \(exit code 1; ModuleNotFoundError: No module named 'onnxrunti"):
        Remote("far", (sys.executable, "-c", "import onnxruntime_of_this_board")).identity()


def test_silence_is_waited_for_as_long_as_the_work_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    device = faulty("hangs", "measure")
    device.identity()
    monkeypatch.setattr(remote, "PATIENCE", 0.1)
    monkeypatch.setattr(remote, "PATIENCE_PER_MB", 0.5)
    began = time.monotonic()
    files = [to_onnx(network(300)), to_onnx(network(4))]
    expected = 0.1 + 0.5 * (sum(map(len, files)) + len(remote.reference_model())) / 2**20
    with pytest.raises(DeviceLost, match=rf"it said nothing for {expected:.3g} seconds") as error:
        device.measure(files)
    assert error.value.exit_code == 1 and expected > 0.4 and time.monotonic() - began >= expected
    assert device._wire._side is not None and device._wire._side.process.poll() is not None  # it was ended


def test_signs_of_life_keep_a_long_measurement_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    device = faulty("ticks slowly")
    device.identity()
    monkeypatch.setattr(remote, "PATIENCE", 1.0)
    (latency,) = device.measure([to_onnx(network(4))], Runs(most=10**6, seconds=2.0))
    assert latency.runs > 100


def test_a_network_that_it_refuses_leaves_it_as_it_was(loopback: Remote, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"this network cannot be run on loopback \(.*[Pp]rotobuf") as error:
        loopback.measure([b"not a network"])
    assert error.value.exit_code == 2
    with pytest.raises(BadInput, match=r"none\.onnx: no such file"):
        loopback.measure([tmp_path / "none.onnx"])
    assert loopback.measure([to_onnx(network(4))], Runs(most=10))[0].runs == 10


def test_what_it_says_of_itself_is_shown_in_one_line() -> None:
    found = faulty("strange", "hello").identity()["cpu"]
    assert found.startswith("A[31mBBB") and len(found) <= remote.MOST_SAID


def test_an_interrupt_in_the_middle_does_not_put_answers_out_of_step(monkeypatch: pytest.MonkeyPatch) -> None:
    device = faulty("none")
    device.identity()
    with monkeypatch.context() as patch:
        patch.setattr(device._wire, "_answer", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            device.profile(to_onnx(network(4)))
    with pytest.raises(DeviceLost, match="it was interrupted"):
        device.profile(to_onnx(network(4)))


def test_it_ends_with_who_asks() -> None:
    device = make_device("loopback")
    assert isinstance(device, Remote)
    device.identity()
    assert device._wire._side is not None
    process = device._wire._side.process
    del device
    gc.collect()
    assert process.poll() is not None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not show processes as files")
def test_it_ends_when_who_asks_is_killed() -> None:
    script = (
        "import os; from edgewright.device.resolve import make_device; device = make_device('loopback'); "
        "device.identity(); print(device._wire._side.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid, deadline = int(run.stdout), time.monotonic() + 20
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.returncode == -9 and not _alive(pid)


def _alive(pid: int) -> bool:
    """A process that has ended may wait for somebody to look at it."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_any_program_may_be_on_the_other_side() -> None:
    """What `--exec` will need: nothing but the command says who answers."""
    identity = Remote("far", (sys.executable, "-I", agent.__file__), 2).identity()
    assert (identity["name"], identity["threads"]) == ("far", 2)
