"""Networks and data that cannot be used, as a user meets them: one line that says what, where and what to do, exit code
2, nothing written, and nothing that a library prints on its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from edgewright.cli.app import app
from edgewright.export.runtimes.executorch_adapter import ExecuTorch
from edgewright.export.runtimes.litert_adapter import LiteRt
from edgewright.export.runtimes.openvino_adapter import OpenVino

Change = Callable[[onnx.ModelProto], None]
X = np.random.default_rng(0).standard_normal((30, 3, 8, 8)).astype(np.float32)


def model(shape=(1, 3, 8, 8)) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["y"], name="flat"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, shape)], [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(X[:4, :, :3, :3].copy(), "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Wobble"


def external(model: onnx.ModelProto) -> None:
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../elsewhere.bin")


def dynamic(model: onnx.ModelProto) -> None:
    for index, name in ((0, "N"), (2, "h"), (3, "w")):
        model.graph.input[0].type.tensor_type.shape.dim[index].dim_param = name


def torn(model: onnx.ModelProto) -> None:
    model.graph.node[2].input[0] = "nowhere"


NETWORKS: list[tuple[Change | bytes, str]] = [
    (b"", "net.onnx: not an ONNX file, or one without operators"),
    (b"certainly no protobuf \xff\xff\xff", "net.onnx: not an ONNX file, or a broken one"),
    (model().SerializeToString()[:-40], "net.onnx: not an ONNX file, or a broken one"),
    (opset, "net.onnx: opset 999 is not known here; export it with one from 1 to"),
    (operator, "net.onnx: node 'pool' is a 'Wobble', an operator that opset 18 does not have here"),
    (external, "net.onnx: weight 'w' is kept in '../elsewhere.bin', outside the model's folder; that is refused"),
    (dynamic, "net.onnx: the input 'x' has the shape 1,3,?,?: say which, with --shape 1,3,N,N"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(model(), "net.onnx")
    np.savez("good.npz", x=X)
    return tmp_path


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line that a command ends with."""
    before = set(Path().iterdir())
    done = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("edgewright: ")
    assert done.stdout == "" and capfd.readouterr() == ("", "")  # what C libraries print goes past sys.stderr
    assert set(Path().iterdir()) == before
    return done.stderr


@pytest.mark.parametrize(("change", "message"), NETWORKS)
def test_networks(place: Path, capfd, change: Change | bytes, message: str) -> None:
    if isinstance(change, bytes):
        Path("net.onnx").write_bytes(change)
    else:
        made = model()
        change(made)
        Path("net.onnx").write_bytes(made.SerializeToString())
    assert message in refused(capfd, "export", "net.onnx", "--choose", "--data", "arrays:good.npz")
    assert message in refused(capfd, "measure", "net.onnx")


def test_a_torn_graph(place: Path, capfd) -> None:
    made = model()
    torn(made)
    Path("net.onnx").write_bytes(made.SerializeToString())
    assert "net.onnx: not a valid ONNX model (" in refused(
        capfd, "export", "net.onnx", "--choose", "--data", "arrays:good.npz"
    )
    assert "net.onnx: ONNX Runtime cannot open it (" in refused(capfd, "measure", "net.onnx")


def test_a_shape_that_does_not_fit(place: Path, capfd) -> None:
    made = model()
    dynamic(made)
    onnx.save(made, "net.onnx")
    message = "the input 'x' has the shape 1,3,?,?, which --shape 1,4,8,8 does not fit"
    for command in (("export", "net.onnx", "--choose", "--data", "arrays:good.npz"), ("measure", "net.onnx")):
        assert message in refused(capfd, *command, "--shape", "1,4,8,8")


ARRAYS = [
    ({"x": X[:0]}, "x is empty or one sample; some to calibrate and some to compare are needed"),
    ({"x": X[:, :, :7]}, "x has shape (30, 3, 7, 8); the network takes (N, 3, 8, 8)"),
    ({"x": X[0]}, "x has shape (3, 8, 8); the network takes (N, 3, 8, 8)"),
    ({"z": X}, "has no array x; give x, the inputs as the network takes them"),
    ({"x": (X * 9).astype(np.uint8)}, "x must be floats, scaled as the network takes them (it is uint8)"),
    ({"x": X * np.inf}, "x holds values that are not finite"),
    ({"x": X, "y": np.zeros(7, np.int64)}, "x has 30 samples and y 7"),
]


@pytest.mark.parametrize(("arrays", "message"), ARRAYS)
def test_arrays(place: Path, capfd, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez("data.npz", **arrays)
    assert f"data.npz: {message}" in refused(capfd, "export", "net.onnx", "--choose", "--data", "arrays:data.npz")


def test_a_label_that_no_output_has(place: Path, capfd) -> None:
    np.savez("data.npz", x=X, y=np.full(30, 4))
    message = "y has the label 4, and no output of the network has so many columns ('y' 4); labels count from 0"
    assert message in refused(capfd, "export", "net.onnx", "--choose", "--data", "arrays:data.npz")


def test_images(place: Path, capfd) -> None:
    for name in ("empty", "broken/a", "one"):
        Path(name).mkdir(parents=True)
    for name in ("broken/a/1.png", "broken/a/2.png"):
        Path(name).write_text("no picture")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save("one/1.png")
    for folder, message in (
        ("none", "none: no such file or folder"),
        ("empty", "empty: no images in this folder"),
        ("broken", "2 unreadable or truncated image files"),
        ("one", "one: 1 images; some to calibrate and some to compare are needed"),
    ):
        assert message in refused(capfd, "export", "net.onnx", "--choose", "--data", f"images:{folder}")
    assert "say on which data it is to be compared: --data images:DIR" in refused(
        capfd, "export", "net.onnx", "--choose"
    )


def test_runtimes_that_are_missing(place: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    for runtime in (OpenVino, ExecuTorch, LiteRt):
        monkeypatch.setattr(runtime, "installed", lambda self: False)
    choose = ("export", "net.onnx", "--choose", "--data", "arrays:good.npz", "--runtime")
    assert "openvino is not installed: pip install 'edgewright[openvino]'" in refused(capfd, *choose, "openvino")
    for ending, name in ((".xml", "openvino"), (".pte", "executorch"), (".tflite", "litert")):
        message = f"{name} is not installed: pip install 'edgewright[{name}]'"
        assert message in refused(capfd, "measure", f"net{ending}")
    # What cannot be made of an ONNX file is not worth installing for it.
    for name in ("executorch", "litert"):
        line = refused(capfd, *choose, name)
        assert f"net.onnx: files of {name} are made from a PyTorch network, which an ONNX file does not hold" in line
    assert "arm-phone takes files of executorch, made from a PyTorch network" in refused(
        capfd, *choose[:-1], "--for", "arm-phone"
    )


def test_targets(place: Path, capfd) -> None:
    choose = ("export", "net.onnx", "--choose", "--data", "arrays:good.npz", "--for")
    Path("mine.yaml").write_text(
        "name: mine\nsummary: s\nsource: s\nruntime: onnxruntime\ntypes: [int8]\nforbidden: [global_pool]\n"
    )
    assert "mine cannot run node 'pool', a 'GlobalAveragePool'" in refused(capfd, *choose, "mine.yaml")
    assert "no.yaml: no such file" in refused(capfd, *choose, "no.yaml")
    assert "unknown device 'toaster'; choose from cpu," in refused(capfd, *choose, "toaster")


def test_an_old_opset_is_quantised_all_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.export.choose import choice as choosing

    monkeypatch.setattr(choosing, "RUNS", 20)
    monkeypatch.setattr(choosing, "FEWEST_RUNS", 20)
    made = model()
    made.opset_import[0].version = 9
    made.ir_version = 4
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (4, 3, 3, 3)))  # as IR 3 wanted it
    onnx.save(made, "net.onnx")
    done = CliRunner().invoke(
        app,
        [
            "export",
            "net.onnx",
            "--choose",
            "--data",
            "arrays:good.npz",
            "--runtime",
            "onnxruntime",
            "--max-drop",
            "50",
            "-q",
        ],
    )
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("onnxruntime int8")]
    assert "U8S8" in line or "S8S8" in line


def test_the_command_itself(place: Path) -> None:
    """Once through the interpreter, as a shell runs it."""
    Path("net.onnx").write_bytes(b"certainly no protobuf \xff\xff\xff")
    command = [sys.executable, "-m", "edgewright", "export", "net.onnx", "--choose", "--data", "arrays:good.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "edgewright: net.onnx: not an ONNX file, or a broken one\n"
