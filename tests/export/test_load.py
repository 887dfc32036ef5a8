import pickle  # noqa: TID251 - to make the malicious file that must be refused
import shutil

import pytest
import torch

from edgewright.core.data import read_json
from edgewright.core.errors import BadInput
from edgewright.core.files import sha256, write_text
from edgewright.core.run import RunFolder
from edgewright.export.load import load_model
from edgewright.export.parity import verify


def test_loaded_network_is_the_exported_one(made_run):
    state = torch.get_rng_state()
    model = load_model(made_run)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    resolution = read_json(RunFolder(made_run).architecture)["resolution"]
    x = torch.randn(5, 1, resolution, resolution, generator=torch.Generator().manual_seed(0))
    assert verify(model, made_run / "model.onnx", x).same == 100


class Malicious:
    """What a pickle can do: make a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("vouched", [False, True], ids=["altered", "vouched for by result.json"])
def test_a_pickle_in_place_of_the_weights_is_refused_and_runs_nothing(made_run, tmp_path, vouched):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(made_run, run.path)
    run.model.write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    if vouched:
        data = read_json(run.result)
        data["files"]["model.safetensors"] = sha256(run.model)
        result = run.read_result().model_validate(data)
        write_text(run.result, result.to_json())
    with pytest.raises(BadInput, match="a pickle, which could run" if vouched else "altered"):
        load_model(run.path)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_network_are_refused(made_run, tmp_path):
    from safetensors.torch import save_file

    run = RunFolder(tmp_path / "run")
    shutil.copytree(made_run, run.path)
    save_file({"some.weight": torch.ones(2)}, run.model)
    data = read_json(run.result)
    data["files"]["model.safetensors"] = sha256(run.model)
    write_text(run.result, run.read_result().model_validate(data).to_json())
    with pytest.raises(BadInput, match="not the weights of the network"):
        load_model(run.path)


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such run folder"):
        load_model(tmp_path / "nowhere")
