import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.task.assemble import Described, assemble, fingerprint, is_text, statistics
from edgewright.task.augment.default import moving
from edgewright.task.augment.image import Augment
from edgewright.task.base import InputSpec, Split, Task, TaskSpec, Wishes, batches, normalise
from edgewright.task.sizes import fit_size
from edgewright.task.split import stratified


def numbered(counts: list[int], test: bool = False, channels: int = 1, **wishes) -> Task:
    """A task whose first pixels spell the image's number, so that parts can be told apart."""
    labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
    images = torch.zeros((len(labels), channels, 8, 8))
    images[:, 0, 0, 0] = torch.arange(len(labels)).float()
    split = Split(images, labels)
    classes = [f"class {label}" for label in range(len(counts))]
    held = Split(images + 10_000, labels) if test else None
    found = Described(name="n", source="s", names=tuple(classes), flip=True)
    return assemble(found, Wishes(**wishes), train=split, val=None, test=held)


def numbers(split: Split) -> set[int]:
    return set(split.inputs[:, 0, 0, 0].int().tolist())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=6), st.integers(0, 5), st.floats(0.05, 0.5))
def test_parts_are_disjoint_complete_and_stratified(counts, seed, share):
    task = numbered(counts, seed=seed, val_share=share)
    parts = [numbers(part) for part in (task.train, task.val, task.test)]
    assert sum(map(len, parts)) == sum(counts)
    assert set.union(*parts) == set(range(sum(counts)))
    for label, count in enumerate(counts):
        test = int((task.test.targets == label).sum())
        assert test == min(max(1, round(0.2 * count)), count - 1)
        rest = count - test
        assert int((task.val.targets == label).sum()) == min(max(1, round(share * rest)), rest - 1)
        assert int((task.train.targets == label).sum()) >= 1
    again = numbered(counts, seed=seed, val_share=share)
    assert torch.equal(again.train.inputs, task.train.inputs)
    assert torch.equal(again.test.targets, task.test.targets)


def test_labels_stay_with_their_images():
    task = numbered([10, 20, 30], seed=4)
    for part in (task.train, task.val, task.test):
        expected = torch.bucketize(part.inputs[:, 0, 0, 0].contiguous(), torch.tensor([10.0, 30.0]), right=True)
        assert torch.equal(part.targets, expected)


def test_given_test_part_is_kept_as_it_is():
    task = numbered([10, 20], test=True, seed=1)
    assert task.test.inputs[:, 0, 0, 0].int().tolist() == list(range(10_000, 10_030))
    assert len(task.train) + len(task.val) == 30


def test_seed_changes_split_but_not_digest():
    one, two = numbered([30, 30], seed=0), numbered([30, 30], seed=1)
    assert numbers(one.test) != numbers(two.test)
    assert one.spec.digest == two.spec.digest


def test_first_images_of_a_part_are_of_several_classes():
    assert len(set(numbered([50, 50, 50]).train.targets[:20].tolist())) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.booleans())
def test_statistics_equal_numpys(seed, channels, whole):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (1500, channels, 5, 5)).astype(np.uint8)
    if not whole:
        x = (x / 7 + 1e4).astype(np.float32)
    mean, std = statistics(torch.from_numpy(x))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, x.astype(np.float64).std((0, 2, 3)), rtol=1e-9)


def test_statistics_are_of_the_training_part_only():
    task = numbered([20, 20])
    x = task.train.inputs.double().numpy()
    np.testing.assert_allclose(task.spec.input.mean, x.mean((0, 2, 3)))
    np.testing.assert_allclose(task.spec.input.std, x.std((0, 2, 3)))


def test_constant_channel_does_not_divide_by_zero():
    mean, std = statistics(torch.full((5, 2, 4, 4), 0.1))
    assert mean == pytest.approx((0.1, 0.1))
    assert std == (1.0, 1.0)


def test_normalised_training_part_has_mean_0_and_std_1():
    task = numbered([40, 40], channels=1)
    x = torch.cat([x for x, _ in batches(task.train, task.spec, batch_size=7, size=(8, 8))])
    assert x.dtype == torch.float32
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)


def test_normalise_resizes_with_antialiasing():
    task = numbered([5, 5])
    images = torch.zeros((1, 1, 8, 8), dtype=torch.uint8)
    images[..., ::2] = 200
    x = normalise(images, task.spec, (4, 4))
    half = functional.interpolate(images.float(), (4, 4), mode="bilinear", antialias=True)
    assert torch.allclose(x, (half - task.spec.input.mean[0]) / task.spec.input.std[0])
    assert images.max() == 200  # the caller's images are untouched


def test_batches_cover_everything_once_in_a_seeded_order():
    task = numbered([33, 30])

    def run(**options):
        return list(batches(task.train, task.spec, batch_size=10, size=(8, 8), **options))

    raw = torch.cat([x[:, 0, 0, 0] for x, _ in run(shuffle=5)]) * task.spec.input.std[0] + task.spec.input.mean[0]
    assert sorted(raw.round().int().tolist()) == sorted(numbers(task.train))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(run(shuffle=5), run(shuffle=5), strict=True))
    assert not torch.equal(run(shuffle=5)[0][0], run(shuffle=6)[0][0])
    assert torch.equal(torch.cat([y for _, y in run()]), task.train.targets)
    assert {len(y) for _, y in run(drop_last=True)} == {10}
    assert len(run(drop_last=True)) == len(task.train) // 10


def test_a_pass_that_goes_on_gives_the_batches_of_the_whole_one():
    task, augment = numbered([33, 30]), Augment(pad=2, rotate=20, erase=0.5)

    def run(start: int = 0):
        made = batches(
            task.train, task.spec, batch_size=8, size=(8, 8), shuffle=3, augment=moving(augment, task.spec), start=start
        )
        return [torch.cat([x.flatten(1), y.unsqueeze(1)], 1) for x, y in made]

    whole = run()
    assert len(whole) > 4
    for start in range(len(whole) + 2):
        assert all(torch.equal(a, b) for a, b in zip(run(start), whole[start:], strict=True))


def test_batches_leave_the_global_random_state_alone():
    task = numbered([10, 10])
    before = torch.get_rng_state()
    list(batches(task.train, task.spec, batch_size=4, size=(8, 8), shuffle=1))
    assert torch.equal(before, torch.get_rng_state())


def test_digest_sees_a_pixel_a_label_and_a_name():
    images, labels = torch.zeros((4, 1, 8, 8), dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    base = fingerprint(["a", "b"], Split(images, labels))
    assert base == fingerprint(["a", "b"], Split(images.clone(), labels.clone()))
    changed = images.clone()
    changed[3, 0, 7, 7] = 1
    others = {
        fingerprint(["a", "b"], Split(changed, labels)),
        fingerprint(["a", "b"], Split(images, 1 - labels)),
        fingerprint(["a", "c"], Split(images, labels)),
        fingerprint(["a", "b"], Split(images[:3], labels[:3])),
    }
    assert base not in others
    assert len(others) == 4


def test_stratified_never_empties_a_class():
    kept, held = stratified(torch.tensor([0, 0, 1, 1, 1]), 0.5, 0)
    assert len(kept) + len(held) == 5
    assert set(torch.tensor([0, 0, 1, 1, 1])[held].tolist()) == {0, 1}


def test_fit_size_keeps_the_shape_and_brings_the_shorter_side_into_range():
    tall = torch.randint(0, 256, (3, 2, 20, 12), dtype=torch.uint8)
    assert fit_size(tall, None) is tall
    small = fit_size(tall, (10, 9))
    assert small.shape == (3, 2, 10, 9)
    assert small.dtype == torch.uint8
    reference = functional.interpolate(tall.float(), (10, 9), mode="bilinear", antialias=True)
    assert torch.equal(small, reference.round().to(torch.uint8))
    assert fit_size(torch.zeros((1, 1, 5, 6)), None).shape[-2:] == (8, 10)
    assert fit_size(torch.zeros((1, 1, 300, 448)), None).shape[-2:] == (224, 335)
    assert fit_size(tall, 16).shape[-2:] == (16, 16)


def test_text_is_told_by_its_names():
    assert is_text(["0", "1", "12"])
    assert is_text(["a", "B", "7"])
    assert not is_text(["cat", "7"])


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"val_share": 0.0}, "val_share"),
        ({"val_share": 0.9}, "val_share"),
        ({"skip_bad": -1}, "skip_bad"),
        ({"resolution": 600}, "from 8 to 512"),
        ({"resolution": (64, 4)}, "from 8 to 512"),
    ],
)
def test_wishes_out_of_range(wishes, words):
    with pytest.raises(BadInput, match=words):
        Wishes(**wishes)


def test_too_few_of_a_class():
    with pytest.raises(BadInput, match=r"at least 3 images.*'class 1' has 2"):
        numbered([10, 2])


def test_parts_of_several_inputs_and_targets():
    count = 30
    inputs = {"image": torch.rand(count, 3, 8, 10), "tilt": torch.rand(count, 4) * 7 + 2}
    targets = {"kind": torch.arange(count) % 3, "side": torch.arange(count) % 2}
    part = Split(inputs, targets).take(torch.tensor([4, 1]))
    assert len(part) == 2
    assert torch.equal(part.inputs["tilt"], inputs["tilt"][[4, 1]])
    assert part.targets["side"].tolist() == [0, 1]
    specs = [
        InputSpec(name=name, shape=x.shape[1:], mean=mean, std=std)
        for name, x in inputs.items()
        for mean, std in [statistics(x)]
    ]
    spec = TaskSpec(
        name="n", source="s", inputs=tuple(specs), names=("a", "b"), flip=False, num_train=count, num_val=0, num_test=0,
        digest="",
    )  # fmt: skip
    ((x, y),) = batches(Split(inputs, targets), spec, batch_size=count, size=(4, 5))
    assert x["image"].shape == (count, 3, 4, 5)
    torch.testing.assert_close(x["tilt"].mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(x["tilt"].std(0, unbiased=False), torch.ones(4))
    assert y is not targets and torch.equal(y["kind"], targets["kind"])


def test_a_task_of_version_0_1_reads_as_one_of_today():
    old = {
        "name": "digits", "source": "digits", "classes": ["0", "1"], "channels": 1, "resolution": 8, "mean": [77.8],
        "std": [95.7], "flip": False, "num_train": 5, "num_val": 2, "num_test": 3, "digest": "ab", "white": 255.0,
    }  # fmt: skip
    spec = TaskSpec.parse(old, "x")
    assert spec.names == ("0", "1")
    assert spec.inputs == (InputSpec(shape=(1, 8, 8), mean=(77.8,), std=(95.7,), white=255.0),)
    assert (spec.kind, spec.size, spec.decides) == ("classification", (8, 8), "accuracy")
    assert TaskSpec.parse(spec.model_dump(mode="json"), "x") == spec
