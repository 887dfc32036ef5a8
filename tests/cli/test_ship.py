"""`export` and `measure` from the command line: the JSON that checks rely on, exit codes, one line for a fault."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from edgewright.cli.app import app
from edgewright.export.choose import choice as choosing
from edgewright.export.onnx import export_onnx


def edgewright(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "RUNS", 20)
    monkeypatch.setattr(choosing, "FEWEST_RUNS", 20)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "model.onnx"
    with torch.random.fork_rng():
        export_onnx(nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Flatten()), (3, 6, 7), path)
    return path


def test_choose_prints_exactly_what_checks_rely_on(digits_run, tmp_path: Path) -> None:
    done = edgewright(
        "export", digits_run.path, "--for", "cpu", "--choose", "--runtime", "onnxruntime", "--json", "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert set(printed) == {"winner", "candidates"}
    assert set(printed["winner"]) == {"runtime", "type", "latency_ms", "file"}
    assert Path(printed["winner"]["file"]).is_file()
    keys = {"runtime", "type", "latency_ms", "p90_ms", "size_bytes", "metric", "top1_agreement", "refused",
            "outputs"}  # fmt: skip
    assert all(set(row) == keys for row in printed["candidates"])


def test_people_get_a_table_and_a_reason(digits_run, tmp_path: Path) -> None:
    arguments = ("--runtime", "onnxruntime", "--type", "fp32", "--out", tmp_path / "out")
    done = edgewright("export", digits_run.path, *arguments)
    assert done.exit_code == 0, done.stderr
    assert "onnxruntime fp32" in done.stdout and "is the fastest that may be handed out" in done.stdout
    assert done.stdout.strip().endswith("model-onnxruntime-fp32.onnx")


def test_a_drop_that_nothing_keeps_is_exit_3_with_the_table(digits_run, tmp_path: Path, monkeypatch) -> None:
    from edgewright.device.compare import Ratio

    monkeypatch.setattr(Ratio, "surely_faster", property(lambda self: False))
    arguments = ("--choose", "--runtime", "onnxruntime", "--type", "int8", "--out", tmp_path / "out")
    done = edgewright("export", digits_run.path, *arguments)
    assert done.exit_code == 3
    assert "onnxruntime int8" in done.stdout
    assert done.stderr.count("\n") == 1
    as_json = edgewright("export", digits_run.path, *arguments, "--json")
    assert as_json.exit_code == 3
    assert json.loads(as_json.stdout)["exit_code"] == 3
    assert "onnxruntime int8" in as_json.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runtime", "onnxruntime"], "say --choose"),
        (["--choose"], "--data images:DIR"),
        (["--choose", "--data", "images:nowhere"], "nowhere: no such file or folder"),
        (["--choose", "--runtime", "tflite", "--data", "arrays:x"], "unknown runtime 'tflite'"),
        (["--choose", "--shape", "1,3,a"], "shape takes whole numbers with commas between, not '1,3,a'"),
        (["--choose", "--mean", "x"], "mean takes numbers with commas between"),
        (["--choose", "--for", "toaster"], "unknown device 'toaster'"),
    ],
)
def test_faults_are_one_line(file: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = edgewright("export", file, *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_shapes_by_name(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])], "g",
        [info("a", TensorProto.FLOAT, ("n", "length")), info("b", TensorProto.FLOAT, ("n", "length"))],
        [info("y", TensorProto.FLOAT, ("n", "length"))],
    )  # fmt: skip
    save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "add.onnx")
    asked = edgewright("measure", tmp_path / "add.onnx", "--runs", "20")
    assert asked.exit_code == 2 and "with --shape 'a=1,N;b=1,N'" in asked.stderr
    done = edgewright("measure", tmp_path / "add.onnx", "--runs", "20", "--shape", "a=1,4; b=1,4", "--json")
    assert done.exit_code == 0, done.stderr
    wrong = edgewright("measure", tmp_path / "add.onnx", "--shape", "a=1,x;b=1,4")
    assert wrong.exit_code == 2 and "shape takes whole numbers with commas between, not '1,x'" in wrong.stderr


def test_measure(file: Path, tmp_path: Path) -> None:
    done = edgewright("measure", file, f"onnxruntime:{file}", "--runs", "20", "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [row["runtime"] for row in printed["rows"]] == ["onnxruntime", "onnxruntime"]
    assert printed["rows"][1]["ratio"]["low"] <= printed["rows"][1]["ratio"]["high"]
    assert edgewright("measure", file, "--runs", "20").stdout.count("\n") >= 3
    missing = edgewright("measure", tmp_path / "no.onnx")
    assert missing.exit_code == 2 and "no such file" in missing.stderr


def test_show(digits_run, tmp_path: Path) -> None:
    arguments = ("--runtime", "onnxruntime", "--type", "fp32", "--out", tmp_path / "out")
    assert edgewright("export", digits_run.path, *arguments).exit_code == 0
    chosen = tmp_path / "out" / "model-onnxruntime-fp32.onnx"
    shown = edgewright("show", chosen)
    assert shown.exit_code == 0 and "as recorded" in shown.stdout and "onnxruntime fp32" in shown.stdout
    source = json.loads(edgewright("show", digits_run.onnx, "--json").stdout)
    printed = json.loads(edgewright("show", chosen, "--json").stdout)
    assert printed["facts"]["source_sha256"] == source["sha256"]
    assert printed["facts"]["source_weights_sha256"] == source["weights_sha256"] == printed["weights_sha256"]
    missing = edgewright("show", tmp_path / "no.onnx")
    assert missing.exit_code == 2 and "no such file" in missing.stderr
