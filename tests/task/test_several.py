"""Several inputs and several targets: how they are named in a file or a Dataset, learned and judged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgewright.core.errors import BadInput
from edgewright.core.tensors import ask
from edgewright.ir.graph import count_params
from edgewright.model.heads.pool import PoolHead
from edgewright.model.several_heads import SeveralHeads
from edgewright.task.augment.default import moving
from edgewright.task.augment.image import Augment
from edgewright.task.augment.mixing import mix
from edgewright.task.base import batches, kind_of
from edgewright.task.kinds.resolve import make_kind
from edgewright.task.load import load_task

COUNT = {"train": 24, "test": 9}


def two_inputs() -> dict[str, np.ndarray]:
    random, found = np.random.default_rng(0), {}
    for part, count in COUNT.items():
        found[f"x_{part}.image"] = random.integers(0, 256, (count, 9, 12, 3)).astype(np.uint8)
        found[f"x_{part}.depth"] = random.random((count, 9, 12)).astype(np.float32)
        found[f"x_{part}.meta"] = random.normal(5, 2, (count, 4))
        found[f"y_{part}"] = np.arange(count) % 3
    return found


def two_targets() -> dict[str, np.ndarray]:
    random, found = np.random.default_rng(1), {}
    for part, count in COUNT.items():
        found[f"x_{part}"] = random.integers(0, 256, (count, 9, 12, 3)).astype(np.uint8)
        found[f"y_{part}.tint"] = np.arange(count) % 3
        found[f"y_{part}.side"] = np.arange(count) // 2 % 2
    return {**found, "classes.side": np.array(["left", "right"])}


def saved(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    np.savez(folder / "data.npz", **arrays)
    return f"arrays:{folder / 'data.npz'}"


def test_named_inputs_are_a_tree_each_normalised_in_its_own_units(tmp_path):
    data = two_inputs()
    task = load_task(saved(tmp_path, data))
    assert [(one.name, one.shape, one.white) for one in task.spec.inputs] == [
        ("image", (3, 9, 12), 255), ("depth", (1, 9, 12), 1), ("meta", (4,), 0)]  # fmt: skip
    assert task.spec.kind == "classification"
    assert np.array_equal(task.test.inputs["meta"].numpy(), data["x_test.meta"].astype(np.float32))
    ((inputs, _),) = batches(task.train, task.spec, batch_size=99)
    for one in inputs.values():
        axes = [axis for axis in range(one.ndim) if axis != 1]
        torch.testing.assert_close(one.mean(axes), torch.zeros(one.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(one.std(axes, correction=0), torch.ones(one.shape[1]), atol=1e-4, rtol=0)


def test_named_targets_are_learned_together(tmp_path):
    task = load_task(saved(tmp_path, two_targets()))
    assert task.spec.kind == "several"
    assert task.spec.names == ("tint.0", "tint.1", "tint.2", "side.left", "side.right")
    assert [part["name"] for part in task.spec.facts["parts"]] == ["tint", "side"]
    assert [(one.name, one.shape) for one in task.spec.signature.outputs] == [
        ("tint.logits", (3,)), ("side.logits", (2,))]  # fmt: skip
    assert task.spec.decides == "mean_score"
    assert {name: len(y) for name, y in task.train.targets.items()} == {"tint": 21, "side": 21}
    for tint in range(3):  # stratified by the first
        assert int((task.val.targets["tint"] == tint).sum()) == 1
    again = type(task.spec).model_validate_json(task.spec.model_dump_json())
    assert kind_of(again).described() == "tint: tells 3 classes apart; side: tells 2 classes apart"


class Samples(Dataset[Any]):
    classes = {"side": ["left", "right"]}  # noqa: RUF012 (as people write it)

    def __init__(self, arrays: dict[str, np.ndarray], part: str) -> None:
        self.arrays, self.part = arrays, part

    def __len__(self) -> int:
        return COUNT[self.part]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index >= len(self):
            raise IndexError
        inputs = {name: self.arrays[f"x_{self.part}.{name}"][index] for name in ("image", "depth", "meta")}
        return inputs, {"tint": index % 3, "side": np.int64(index // 2 % 2)}


def test_a_dataset_of_dicts_is_the_same_task(tmp_path):
    inputs, targets = two_inputs(), two_targets()
    whole = {
        key: value
        for key, value in {**inputs, **targets}.items()
        if key not in ("x_train", "x_test", "y_train", "y_test")
    }
    file = load_task(saved(tmp_path, whole))
    data = load_task((Samples(inputs, "train"), Samples(inputs, "test")))
    assert data.spec.inputs == file.spec.inputs
    assert (data.spec.kind, data.spec.names, data.spec.facts) == (file.spec.kind, file.spec.names, file.spec.facts)
    for name in file.train.inputs:
        assert torch.equal(data.train.inputs[name], file.train.inputs[name])
    for name in file.test.targets:
        assert torch.equal(data.test.targets[name], file.test.targets[name])


def test_maps_of_different_sizes_become_as_large_as_the_largest(tmp_path, capsys):
    data = two_inputs()
    for part in COUNT:
        data[f"x_{part}.depth"] = data[f"x_{part}.depth"][:, ::2, ::2]
    task = load_task(saved(tmp_path, data))
    assert task.train.inputs["depth"].shape[1:] == (1, 9, 12)
    assert "different sizes (image 9 x 12 px, depth 5 x 6 px); all are brought to 9 x 12 px" in capsys.readouterr().err


def test_x_and_y_alone_are_split_as_a_folder_is(tmp_path):
    data = two_inputs()
    whole = {"x": data["x_train.image"], "y": data["y_train"]}
    task = load_task(saved(tmp_path, whole))
    assert (task.spec.num_train, task.spec.num_val, task.spec.num_test) == (15, 3, 6)
    named = {"x.image": data["x_train.image"], "x.depth": data["x_train.depth"], "y.tint": data["y_train"]}
    assert [one.name for one in load_task(saved(tmp_path, named)).spec.inputs] == ["image", "depth"]


def test_class_names_of_one_target_and_of_none(tmp_path, capsys):
    data = {
        key.replace("y_train", "y_train.tint").replace("y_test", "y_test.tint"): x for key, x in two_inputs().items()
    }
    names = np.array(["red", "green", "blue"])
    for called in ("classes", "classes.tint"):
        assert load_task(saved(tmp_path, {**data, called: names})).spec.names == ("red", "green", "blue")
    assert capsys.readouterr().err == ""
    load_task(saved(tmp_path, {**two_targets(), "classes": names, "classes.tone": names}))
    assert "left out 2 arrays: classes, classes.tone" in capsys.readouterr().err


def without(key: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in {**two_inputs()}.items() if name != key}


def renamed(old: str, new: str) -> dict[str, np.ndarray]:
    return {name.replace(old, new): value for name, value in two_inputs().items()}


BAD = [
    (without("x_test.depth"), r"x_test.image and x_test.meta: give every part the same names"),
    ({**two_inputs(), "x_train": np.zeros((24, 9, 12))}, "the same names, or one array without a name"),
    (renamed("depth", "the depth"), "'the depth' is not a name of letters"),
    (renamed("depth", "self"), "'self' is not a name"),
    ({**two_inputs(), "x_train.depth": np.zeros((23, 9, 12), np.float32)}, "x_train.image 24, x_train.depth 23"),
    ({key: value for key, value in two_inputs().items() if "image" not in key and "depth" not in key},
     r"x_train.meta: a map \(N, H, W\) is needed among the inputs"),
    ({**two_inputs(), "y_train": np.zeros((24, 9, 12), int), "y_test": np.zeros((9, 9, 12), int)}, "one class only"),
    ({**two_targets(), "classes.side": np.array(["left"])}, "label 1 in y_train.side is out of range"),
    ({**two_targets(), "y_test.side": np.full(9, 2)}, "y_test.side has class 2, which y_train.side lacks"),
    ({**two_targets(), "y_train.side": np.r_[np.zeros(23, int), 1]}, r"side: every class needs.*'right' has 1"),
    ({**two_targets(), "y_train.side": np.arange(24) / 3, "y_test.side": np.arange(9) / 3}, "labels must be integers"),
]  # fmt: skip


@pytest.mark.parametrize(("arrays", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_names_and_shapes_are_one_sentence(tmp_path, arrays, words):
    with pytest.raises(BadInput, match=words) as caught:
        load_task(saved(tmp_path, arrays))
    assert "\n" not in str(caught.value)


def test_arrays_that_are_not_read_are_named(tmp_path, capsys):
    load_task(saved(tmp_path, {**two_inputs(), "ids": np.arange(3), "x": np.zeros(3)}))
    assert "left out 2 arrays: x, ids" in capsys.readouterr().err


KIND = make_kind(
    "several",
    ("a.0", "a.1", "b.x", "b.y", "b.z"),
    {"parts": [{"name": "a", "kind": "classification", "names": ["0", "1"]},
               {"name": "b", "kind": "classification", "names": ["x", "y", "z"], "metric": "balanced_accuracy"}]},
)  # fmt: skip


def answered(a: list[int], b: list[int]) -> dict[str, Tensor]:
    return {"a.logits": torch.eye(2)[a] * 9, "b.logits": torch.eye(3)[b] * 9}


def test_figures_by_hand():
    targets = {"a": torch.tensor([0, 0, 1, 1]), "b": torch.tensor([0, 0, 0, 2])}
    outputs = answered([0, 0, 0, 1], [0, 1, 0, 2])
    found = {metric.name: metric.value(metric.add(metric.start(), outputs, targets)) for metric in KIND.metrics}
    assert next(iter(found)) == "mean_score"
    assert found["a.accuracy"] == 75
    assert found["b.accuracy"] == 75
    assert found["b.balanced_accuracy"] == pytest.approx((200 / 3 + 100) / 2)
    assert found["mean_score"] == pytest.approx((75 + (200 / 3 + 100) / 2) / 2)
    recall = KIND.metric("b.balanced_accuracy")
    assert recall.each(recall.add(recall.start(), outputs, targets))["b.recall"][:1] == pytest.approx([200 / 3])
    assert recall.names == ("b.x", "b.y", "b.z")
    guess = KIND.guess(targets)
    assert (guess["a.accuracy"], guess["b.balanced_accuracy"], guess["mean_score"]) == (50, 50, 50)


def test_the_losses_are_added_and_the_worst_part_says_whether_two_files_agree():
    targets = {"a": torch.tensor([0, 1]), "b": torch.tensor([2, 0])}
    outputs = {"a.logits": torch.randn(2, 2), "b.logits": torch.randn(2, 3)}
    cross = torch.nn.functional.cross_entropy
    expected = cross(outputs["a.logits"], targets["a"]) + cross(outputs["b.logits"], targets["b"])
    torch.testing.assert_close(KIND.loss(outputs, targets), expected)
    other = answered([0, 1], [2, 1])
    score = KIND.same(answered([0, 1], [2, 0]), other)
    assert (score.name, score.value) == ("b.same_class", 50)


def test_what_is_told_of_one_sample():
    told = KIND.tell(answered([1], [2]), (8, 8), None)
    assert (told["a"]["class"], told["b"]["class"]) == ("1", "z")
    assert KIND.line(told).startswith("a\t1\t0.9")
    zeros, both = torch.tensor([0, 0]), torch.tensor([0, 1])
    shown = KIND.pictures(torch.zeros(2, 3, 8, 8), {"a": both, "b": both}, {"a": zeros, "b": both}, 255.0)
    titles = [picture.title for picture in shown]
    assert titles[0] == "a: Where it errs"
    assert "b: How much of each class is found" in titles


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "0 are named"),
        ({"parts": [{"name": "a", "kind": "classification", "names": ["0", "1"]}]}, "1 are named"),
        ({"parts": [{"name": "a"}] * 2}, "several targets"),
        (
            {"parts": [{"name": name, "kind": "guessing", "names": []} for name in "ab"]},
            "unknown kind of task 'guessing'",
        ),
    ],
)
def test_bad_facts_are_one_sentence(facts, words):
    with pytest.raises(BadInput, match=words):
        make_kind("several", ("a",), facts)


def test_heads_side_by_side_are_the_heads():
    """The module gives what its parts give, and the graph counts both."""
    head = SeveralHeads({"a.logits": PoolHead(2), "b.logits": PoolHead(3)})
    assert head.reads([(8, 16, 12), (12, 8, 6)]) == (1,)
    module = head.build([12], 5).eval()
    x = torch.randn(2, 12, 8, 6)
    found = ask(module, x)
    assert {name: tuple(y.shape) for name, y in found.items()} == {"a.logits": (2, 2), "b.logits": (2, 3)}
    torch.testing.assert_close(found["b.logits"], module.parts[1](x))
    graph = head.graph([(12, 8, 6)], 5)
    assert [graph.shapes[one] for one in graph.outputs] == [(2,), (3,)]
    assert count_params(graph) == sum(count_params(PoolHead(count).graph([(12, 8, 6)], 5)) for count in (2, 3))
    with pytest.raises(BadInput, match="keeps them"):
        head.find(module, x)


def test_several_maps_are_mixed_alike():
    maps = torch.rand(6, 3, 8, 9)
    tree = {"image": maps, "depth": maps[:, :1].clone(), "meta": torch.rand(6, 4)}
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    for mixup, cutmix in ((0.0, 1.0), (1.0, 0.0)):
        alone, soft = mix(maps, y, 3, torch.Generator().manual_seed(3), mixup, cutmix)
        mixed, other = mix(tree, y, 3, torch.Generator().manual_seed(3), mixup, cutmix)
        assert torch.equal(mixed["image"], alone)
        assert torch.equal(mixed["depth"], alone[:, :1])
        assert torch.equal(soft, other)
        assert not torch.equal(mixed["meta"], tree["meta"])


def test_training_batches_of_several_inputs_move_alike(tmp_path):
    """Each map is filled with its own mean where it is shifted in."""
    data = two_inputs()
    task = load_task(saved(tmp_path, data))
    ((inputs, _),) = batches(task.train, task.spec, batch_size=99, augment=moving(Augment(pad=3, fill=tuple(
        value for one in task.spec.inputs if one.is_map for value in one.mean)), task.spec), shuffle=0)  # fmt: skip
    outside = inputs["depth"].abs() < 1e-5
    assert outside.any()
    assert (inputs["image"].abs().amax(1, keepdim=True)[outside] < 0.01).all()  # within the rounding of bytes
