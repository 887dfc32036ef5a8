import os
import pickle  # noqa: TID251 (to see it refused)
from pathlib import Path

import pytest
import safetensors.torch
import torch
from train_toys import conv_net, linear_net

from edgewright.core.errors import BadInput
from edgewright.train.checkpoint import model_signature, read_checkpoint, write_checkpoint

IDENTITY = {"model": "m", "seed": 3}


def write(path: Path) -> dict[str, torch.Tensor]:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7), "c": torch.randn(2, 3, 4, 5)}
    tensors["c"] = tensors["c"].to(memory_format=torch.channels_last)
    tensors["shared"] = tensors["a"]
    write_checkpoint(path, tensors, {"identity": IDENTITY, "step": 4})
    return tensors


def test_round_trip(tmp_path: Path) -> None:
    tensors = write(tmp_path / "x.safetensors")
    found, meta = read_checkpoint(tmp_path / "x.safetensors", IDENTITY)
    assert meta == {"identity": IDENTITY, "step": 4}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.5, 0.999])
def test_a_cut_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "x.safetensors"
    write(path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(BadInput, match=r"x\.safetensors: not a whole checkpoint"):
        read_checkpoint(path, IDENTITY)


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path)
    data = path.read_bytes()
    for at in range(0, len(data), 13):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :])
        with pytest.raises(BadInput):
            read_checkpoint(path, IDENTITY)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "x.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match="not a whole checkpoint"):
        read_checkpoint(path, IDENTITY)
    assert not (tmp_path / "exploded").exists()


def test_somebody_elses_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2)}))
    with pytest.raises(BadInput, match="not a checkpoint of this version"):
        read_checkpoint(path, IDENTITY)


def test_another_training_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write(path)
    with pytest.raises(BadInput, match=r"another training \(another seed\)"):
        read_checkpoint(path, {"model": "m", "seed": 4})


def test_signature_tells_shapes_not_weights() -> None:
    assert model_signature(conv_net(width=8)) == model_signature(conv_net(width=8).apply(lambda m: None))
    assert len({model_signature(m) for m in (conv_net(width=8), conv_net(width=9), linear_net())}) == 3
