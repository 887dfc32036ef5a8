"""A file says what it was made from, and an altered one is found out."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewright.core.errors import BadInput
from edgewright.core.files import sha256, write_text
from edgewright.export.ship.provenance import KEY, signed, weights_sha256
from edgewright.export.ship.show import read_provenance

FACTS = {
    "source": "given.onnx", "source_sha256": "1" * 64, "source_weights_sha256": "2" * 64,
    "winner": {"runtime": "openvino", "type": "int8", "latency_ms": 1.25, "metric": 61.5, "top1_agreement": 0.99},
    "gate": {"samples": 200, "source_accuracy": 62.0}, "versions": {"onnx": "1.2"},
    "measured": {"runs": 300, "threads": 2, "cpu": "Some Processor"},
}  # fmt: skip


def test_the_digest_is_of_names_types_shapes_and_values(network: onnx.ModelProto) -> None:
    before = weights_sha256(network)
    for change in ("name", "value", "shape", "type", "order", "metadata"):
        other = onnx.ModelProto()
        other.CopyFrom(network)
        tensor = next(t for t in other.graph.initializer if len(t.dims) == 4)
        value = numpy_helper.to_array(tensor).copy()
        if change == "name":
            tensor.name += "x"
        elif change == "value":
            value.ravel()[3] = np.nextafter(value.ravel()[3], np.float32(9))
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        elif change == "shape":
            tensor.CopyFrom(numpy_helper.from_array(value.reshape(value.shape[1], value.shape[0], -1), tensor.name))
        elif change == "type":
            tensor.CopyFrom(numpy_helper.from_array(value.view(np.int32), tensor.name))
        elif change == "order":
            rows = list(other.graph.initializer)[::-1]
            del other.graph.initializer[:]
            other.graph.initializer.extend(rows)
        else:
            onnx.helper.set_model_props(other, {"a": "b"})
        assert (weights_sha256(other) == before) == (change in ("order", "metadata")), change


def test_a_signed_file_tells_and_still_runs(network_path: Path, network: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(signed(network_path, {"task": '{"name": "pets"}'}, FACTS))
    onnx.checker.check_model(onnx.load(path))
    found = read_provenance(path)
    assert found.kept == "as recorded" and found.task == "pets"
    assert found.weights_sha256 == weights_sha256(network)
    assert found.facts == FACTS | {"weights_sha256": weights_sha256(network)}
    text = found.text()
    for part in ("given.onnx", "openvino int8", "1.25 ms, median of 300", "Some Processor", "61.50 %, source 62.00 %",
                 "99.00 % of 200 samples", "opset 18", "onnx 1.2"):  # fmt: skip
        assert part in text, part


def test_altered_weights_are_found_out(network_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(signed(network_path, {}, FACTS))
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))
    onnx.save(model, path)
    assert read_provenance(path).kept == "altered"


def test_files_that_are_not_of_ours_or_say_nonsense(network_path: Path, network, tmp_path: Path) -> None:
    plain = read_provenance(network_path)  # exported, never chosen
    assert plain.kept == "as recorded" and plain.facts is None and "not made by edgewright export" in plain.text()
    other, path = onnx.ModelProto(), tmp_path / "model.onnx"
    other.CopyFrom(network)
    del other.metadata_props[:]
    onnx.save(other, path)
    assert read_provenance(path).kept == "not recorded"
    onnx.helper.set_model_props(other, {KEY: "{not json"})
    onnx.save(other, path)
    with pytest.raises(BadInput, match="its metadata cannot be read; the file was altered"):
        read_provenance(path)
    onnx.helper.set_model_props(other, {KEY: json.dumps({"winner": "a", "gate": [1]})})
    onnx.save(other, path)
    assert "cannot be read; the file was altered" in read_provenance(path).text()
    other.graph.initializer[0].raw_data = other.graph.initializer[0].raw_data[:-4]
    onnx.save(other, path)
    with pytest.raises(BadInput, match="a broken ONNX file"):
        read_provenance(path)
    for content in (b"", b"garbage, certainly no protobuf \xff\xff"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="not an ONNX file"):
            read_provenance(path)
    with pytest.raises(BadInput, match="no such file"):
        read_provenance(tmp_path / "no.onnx")


def test_files_of_other_kinds_are_held_against_the_record_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(b"a program")
    assert read_provenance(path).kept == "not recorded"
    write_text(tmp_path / "choice.json", json.dumps({**FACTS, "files": {"model.pte": sha256(path)}}))
    assert read_provenance(path).kept == "as recorded" and "openvino int8" in read_provenance(path).text()
    path.write_bytes(b"another one")
    assert read_provenance(path).kept == "altered"
    write_text(tmp_path / "choice.json", "[]")
    assert read_provenance(path).kept == "not recorded"
