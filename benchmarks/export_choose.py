"""The file that `export --choose` hands out, against ONNX Runtime's fp32 and against its default-typed static int8.

For each network four files are measured in turns in one process on one core: fp32, int8 as `quantize_static` makes it
when nothing is said (S8 activations, one scale a weight tensor, least and greatest values), what `--choose` hands out,
and, where nncf is installed, what OpenVINO + NNCF make of the same network and calibration images. Top-1 is of the
images of `--data`, where they have labels and the network has learned them.

    pip install "edgewright[openvino]" nncf
    python benchmarks/export_choose.py resnet18.onnx mobilenetv2.onnx efficientnet_lite0.onnx --data images:val/

A network with random weights has a latency but no accuracy: give `--max-drop 100` for it.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgewright.core.files import write_text
from edgewright.device.measure import Runs
from edgewright.export.choose.candidates import Wanted
from edgewright.export.choose.choice import Choice, choose
from edgewright.export.choose.samples import Samples, read_samples
from edgewright.export.choose.versus import Versus, versus
from edgewright.export.gates import compare
from edgewright.export.running import Sample, call_of, gathered
from edgewright.export.runtimes.base import Network
from edgewright.export.runtimes.openvino_adapter import OpenVino
from edgewright.export.runtimes.resolve import make_runtimes, runtime_for, runtimes
from edgewright.export.ship.source import Source, read_source


def default_int8(source: Source, calibration: Sequence[Sample], path: Path) -> Path:
    """`onnxruntime.quantization.quantize_static`, nothing said but the model and the data."""
    from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            names = [spec.name for spec in source.inputs]
            self.left = iter([dict(zip(names, sample, strict=True)) for sample in calibration])

        def get_next(self):
            return next(self.left, None)

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(source.path, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, path, Reader())
    return path


def nncf_int8(source: Source, calibration: Sequence[Sample], path: Path) -> Path | None:
    """NNCF's post-training quantisation as its documentation shows it; None where it is not installed."""
    try:
        import nncf  # pyright: ignore[reportMissingImports]
        import openvino  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    model = openvino.Core().read_model(source.model.SerializeToString())
    made = nncf.quantize(model, nncf.Dataset([*map(list, calibration)]), subset_size=len(calibration))
    openvino.save_model(made, str(path))
    return path


def accuracy(place: Path, source: Source, samples: Samples) -> dict[str, float | None]:
    runtime, path = runtime_for(str(place))
    program = runtime.open(path)
    found, expected = (gathered(map(call, samples.comparison)) for call in (program.call, call_of(source.model)))
    gate = compare([spec.name for spec in source.outputs], expected, found, samples.meaning)
    return {"top1": gate.accuracy, "same": gate.same}


def one(place: str, arguments: argparse.Namespace, folder: Path) -> dict:
    source = read_source(place)
    samples = read_samples(source, arguments.data, mean=arguments.mean, std=arguments.std)
    samples = replace(samples.first(arguments.compare), calibration=samples.calibration[: arguments.images])
    calibration = [*samples.calibration]
    files = {"fp32": source.path, "default int8": default_int8(source, calibration, folder / "default.onnx")}
    names = [name for name, runtime in runtimes().items() if runtime.installed() and not name.startswith(("ex", "li"))]
    network = Network(source.model, calibration=calibration)
    runs = Runs(most=arguments.runs)
    choice: Choice = choose(
        network, samples, folder, wanted=Wanted(make_runtimes(names)), max_drop=arguments.max_drop, runs=runs
    )
    print(choice.table())
    print(choice.why)
    assert choice.winner is not None and choice.winner.built is not None
    files["chosen"] = choice.winner.built.path
    beside = nncf_int8(source, calibration, folder / "nncf.xml") if OpenVino().installed() else None
    if beside is not None:
        files["openvino + nncf"] = beside
    measured: Versus = versus(list(files.values()), runs=arguments.runs)
    rows = {
        name: {
            "median_ms": row.median_ms,
            "of fp32": row.ratio.model_dump(),
            **(accuracy(path, source, samples) if arguments.max_drop < 100 else {}),
        }
        for (name, path), row in zip(files.items(), measured.rows, strict=True)
    }
    return {"network": place, "winner": choice.winner.name, "drift": measured.reference_drift, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="ONNX files")
    parser.add_argument("--data", required=True, help="images:DIR or arrays:FILE.npz")
    parser.add_argument("--mean", type=lambda text: tuple(map(float, text.split(","))))
    parser.add_argument("--std", type=lambda text: tuple(map(float, text.split(","))))
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--images", type=int, default=100, help="of the calibration")
    parser.add_argument("--compare", type=int, default=1000, help="images to compare on, at most")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = []
    for place in arguments.networks:
        with tempfile.TemporaryDirectory() as folder:
            results.append(one(place, arguments, Path(folder)))
        found = results[-1]["rows"]
        print(f"\n{place}: {results[-1]['winner']}, reference drifted by {100 * results[-1]['drift']:.0f} %")
        for name, row in found.items():
            top1 = "" if row.get("top1") is None else f"{row['top1']:>8.2f} %"
            times = f"{found['fp32']['median_ms'] / row['median_ms']:.2f} times as fast as fp32"
            print(f"  {name:<18}{row['median_ms']:>9.3f} ms  {times}{top1}")
    if arguments.out:
        write_text(arguments.out, json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
