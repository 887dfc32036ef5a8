"""The card beside the winner: true, complete, without names of people, hosts or folders; its lines of code run."""

import getpass
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewright.core.files import sha256
from edgewright.export.choose import choice as choosing
from edgewright.export.load import load_model
from edgewright.export.parity import torch_outputs
from edgewright.export.runtimes.resolve import runtimes
from edgewright.export.ship.ship import Shipped, ship
from edgewright.task.base import InputSpec, TaskSpec, normalise
from edgewright.task.image_files import read_images

# ExecuTorch's and LiteRT's converters load for many seconds.
FORMS = [
    pytest.param(name, kind, marks=[pytest.mark.slow] * (name in ("executorch", "litert")))
    for name in runtimes()
    for kind in ("fp32", "bf16", "int8")
    if (name, kind) in {("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "bf16"), ("openvino", "int8"),
                        ("executorch", "fp32"), ("executorch", "int8"), ("litert", "fp32"), ("litert", "int8")}
]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.device.compare import Ratio

    monkeypatch.setattr(choosing, "RUNS", 20)
    monkeypatch.setattr(choosing, "FEWEST_RUNS", 20)
    monkeypatch.setattr(Ratio, "surely_faster", property(lambda self: True))


def code(shipped: Shipped) -> str:
    page = shipped.file.with_name("MODEL_CARD.md").read_text()
    (found,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return found


def printed(text: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(text: str, folder: Path) -> int:
    return int(printed(text, folder).split()[-1])


@pytest.mark.parametrize(("name", "kind"), FORMS)
def test_its_lines_of_code_say_what_the_network_says(digits_run, tmp_path: Path, name: str, kind: str) -> None:
    runtime = runtimes()[name]
    if not runtime.installed():
        pytest.skip(f"{name} is not installed")
    shipped = ship(digits_run.path, runtimes=[name], kinds=[kind], out=tmp_path / "out", max_drop=5.0)
    text, model = code(shipped), load_model(digits_run.path)
    assert len(text.splitlines()) <= 16 and "edgewright" not in text
    spec = TaskSpec.parse(digits_run.read_result().task, "result")
    random = np.random.default_rng(4)
    for index in range(2 if name in ("onnxruntime", "openvino") else 1):
        pixels = random.integers(0, 256, (20, 30), dtype=np.uint8)  # neither square nor of the right size
        Image.fromarray(pixels).save(shipped.file.with_name("photo.jpg"), quality=95)
        x = normalise(read_images([shipped.file.with_name("photo.jpg")], spec), spec, (8, 8))
        expected = torch_outputs(model, x)[0][0]
        assert expected.argmax() == run(text, shipped.file.parent) or np.ptp(np.sort(expected)[-2:]) < 0.3, index


def test_it_says_what_is_in_the_evidence(digits_run, tmp_path: Path) -> None:
    shipped = ship(digits_run.path, runtimes=["onnxruntime"], out=tmp_path / "out", max_drop=2.0)
    page = shipped.file.with_name("MODEL_CARD.md").read_text()
    winner = shipped.choice.winner
    assert winner is not None and winner.gate is not None
    spec = TaskSpec.parse(digits_run.read_result().task, "result")
    for part in (
        sha256(shipped.file), sha256(digits_run.onnx), shipped.choice.why, "(1, 1, 8, 8)", "NCHW", "gray",
        f"mean {spec.input.mean[0]:.6g}; std {spec.input.std[0]:.6g}", "10 numbers", "7: 7",
        "`logits`: float32, shape (1, 10)", f"{winner.gate.source_accuracy:.2f} %",
        f"on {winner.gate.samples} labelled samples", "its test part was not looked at", "batch is fixed to 1",
        "built for 8 samples",
    ):  # fmt: skip
        assert part in page, part
    rows = [line for line in page.splitlines() if line.startswith(("| onnxruntime", "| openvino", "| litert"))]
    assert len([row for row in rows if "**chosen**" in row]) == 1
    for candidate in shipped.choice.candidates:
        if candidate.latency_ms is not None:
            assert f"{candidate.latency_ms:.3f} ms" in page
        elif candidate.refused:
            assert candidate.refused in page


def test_a_network_of_one_sample_says_so(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Add", ["x", "m"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, (1, 6))], [info("y", TensorProto.FLOAT, (1, 6))]
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "net.onnx"
    )
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).standard_normal((20, 6), dtype=np.float32))
    shipped = ship(tmp_path / "net.onnx", data=f"arrays:{tmp_path / 'a.npz'}", runtimes=["onnxruntime"], kinds=["fp32"])
    page = shipped.file.with_name("MODEL_CARD.md").read_text()
    assert "takes one sample only" in page and "for 8 samples" not in page
    assert run(code(shipped), shipped.file.parent) in range(6)


def test_it_names_no_person_host_or_folder(network_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "alices_private_photos"
    folder.mkdir()
    x = np.random.default_rng(0).standard_normal((40, 3, 12, 20), dtype=np.float32)
    np.savez(folder / "secret.npz", x=x)
    shipped = ship(network_path, data=f"arrays:{folder / 'secret.npz'}", runtimes=["onnxruntime"], out=tmp_path / "o")
    page = shipped.file.with_name("MODEL_CARD.md").read_text()
    for text in (page, shipped.record.read_text(), shipped.file.read_bytes().decode("latin1")):
        for word in ("alices_private_photos", "secret.npz", str(tmp_path), str(network_path.parent)):
            assert word not in text
    assert socket.gethostname() not in page and f" {getpass.getuser()} " not in page
    assert "as the network was trained" in page and "what its outputs mean" in page
    assert printed(code(shipped), shipped.file.parent) == "[(1, 5)]"


def test_assumed_scaling_is_said_and_given_scaling_used(tmp_path: Path, module) -> None:
    from edgewright.export.onnx import export_onnx

    export_onnx(module, (3, 16, 16), tmp_path / "net.onnx")
    random = np.random.default_rng(0)
    for index in range(20):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (tmp_path / "val" / "abcde"[index % 5]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "val" / "abcde"[index % 5] / f"{index}.png")
    options = {"runtimes": ["onnxruntime"], "kinds": ["fp32"], "data": f"images:{tmp_path / 'val'}"}
    shipped = ship(tmp_path / "net.onnx", out=tmp_path / "a", **options)
    page = shipped.file.with_name("MODEL_CARD.md").read_text()
    assert "were assumed" in page and "mean 123.675, 116.28, 103.53" in page and "red, green, blue" in page
    half = (0.5, 0.5, 0.5)
    shipped = ship(tmp_path / "net.onnx", out=tmp_path / "b", mean=half, std=half, **options)
    page = shipped.file.with_name("MODEL_CARD.md").read_text()
    assert "were assumed" not in page and "between -1 and 1" in page
    photo = tmp_path / "val" / "a" / "0.png"
    Image.open(photo).save(shipped.file.with_name("photo.jpg"), quality=100, subsampling=0)
    spec = TaskSpec(
        name="t", source="images", inputs=(InputSpec(shape=(3, 16, 16), mean=(127.5,) * 3, std=(127.5,) * 3),),
        names=("a", "b"), flip=False, num_train=0, num_val=0, num_test=0, digest="",
    )  # fmt: skip
    x = normalise(read_images([shipped.file.with_name("photo.jpg")], spec), spec, (16, 16))
    assert run(code(shipped), shipped.file.parent) == torch_outputs(module, x)[0][0].argmax()
