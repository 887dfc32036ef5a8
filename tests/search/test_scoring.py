"""The worker function: the same job, the same bits, wherever and in whatever order it runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgewright.core.pool import pool
from edgewright.core.seed import derive, rng
from edgewright.proxy.base import score
from edgewright.proxy.resolve import resolve_proxies
from edgewright.search.scoring import ScoringJob, save_batches, score_architecture
from edgewright.space.resolve import make_space
from edgewright.task.base import Split, TaskSpec, normalise
from edgewright.task.stored import read_splits

SPEC = TaskSpec(
    name="noise",
    source="dataset",
    classes=("a", "b", "c"),
    channels=2,
    resolution=16,
    mean=(120.0, 100.0),
    std=(60.0, 70.0),
    flip=True,
    num_train=40,
    num_val=0,
    num_test=0,
    digest="",
)


@pytest.fixture
def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 2, 16, 16), generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(0, 3, (40,), generator=generator))


@pytest.fixture
def jobs(split: Split, tmp_path: Path) -> list[ScoringJob]:
    path = tmp_path / "batches.safetensors"
    save_batches(path, split, count=2, size=8, seed=1)
    space, random = make_space("mobile", SPEC), rng(0, "test")
    smallest = [space.smallest(), *(space.mutate(space.smallest(), random) for _ in range(3))]
    return [
        ScoringJob("mobile", SPEC, a.model_dump(mode="json"), path, ("zico", "params", "macs", "log_sizes"), seed=7)
        for a in smallest
    ]


def test_batches_are_disjoint_seeded_and_fit_the_split(split, tmp_path):
    def draw(seed: int, **sizes: int) -> list[Split]:
        save_batches(tmp_path / "b.safetensors", split, seed=seed, **sizes)
        return list(read_splits(tmp_path / "b.safetensors").values())

    one = draw(1, count=3, size=9)
    assert [len(part) for part in one] == [9, 9, 9] and one[0].inputs.dtype == torch.uint8
    assert len(torch.cat([part.inputs for part in one]).unique(dim=0)) == 27
    assert torch.equal(one[0].inputs, draw(1, count=3, size=9)[0].inputs)
    assert not torch.equal(one[0].inputs, draw(2, count=3, size=9)[0].inputs)
    assert draw(1)[1].targets.shape == (20,)


def test_equals_scoring_by_hand(jobs, split):
    job = jobs[0]
    space = make_space("mobile", SPEC)
    architecture = space.read(job.architecture)
    values = score_architecture(job)
    model = space.build(architecture)
    by_hand = score(model, [(normalise(split.inputs, SPEC, 16), split.targets)], resolve_proxies(["params", "macs"]))
    assert values["params"] == by_hand["params"]
    assert list(values) == list(job.proxies)


def test_the_same_bits_in_one_process_and_in_many_in_any_order(jobs):
    threads = torch.get_num_threads()
    numbers = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        here = [score_architecture(job) for job in jobs]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), numbers)
    with pool(2) as workers:
        there = list(workers.imap(score_architecture, jobs[::-1] + jobs))
    assert there == here[::-1] + here
    assert len({values["zico"] for values in here}) == len(
        {job.architecture["space"] + str(job.architecture) for job in jobs}
    )


def test_a_new_seed_gives_new_weights(jobs):
    one, two = score_architecture(jobs[0]), score_architecture(replace(jobs[0], seed=8))
    assert one["zico"] != two["zico"] and one["params"] == two["params"]


def test_cheap_is_the_thin_network_on_few_images_and_the_structure_is_the_whole_one(tmp_path):
    spec = SPEC.model_copy(update={"inputs": (SPEC.input.model_copy(update={"shape": (2, 18, 18)}),)})
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (40, 2, 18, 18), generator=generator, dtype=torch.uint8)
    path = tmp_path / "batches.safetensors"
    save_batches(path, Split(images, torch.randint(0, 3, (40,), generator=generator)), count=2, size=20, seed=1)
    space = make_space("nb201", spec)
    architecture = space.sample(rng(4, "test"))
    names = ("params", "zico", "macs")
    exact = ScoringJob("nb201", spec, architecture.model_dump(mode="json"), path, names, seed=7)
    whole, cheap = score_architecture(exact), score_architecture(replace(exact, cheap=True))
    assert list(cheap) == list(names)
    assert {name: cheap[name] for name in names[::2]} == {name: whole[name] for name in names[::2]}

    torch.manual_seed(derive(7, "score", architecture.key()))
    model = space.thin(architecture)
    for (
        parameter
    ) in model.parameters():  # the layout of the scoring; in another the heavy tail of ZiCo rounds otherwise
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    few = [
        (
            normalise(part.inputs[:16], spec).contiguous(memory_format=torch.channels_last),
            part.targets[:16],
        )
        for part in read_splits(path).values()
    ]
    by_hand = score(model, few, resolve_proxies(["zico"]))
    assert cheap["zico"] == pytest.approx(by_hand["zico"], rel=1e-4)
    assert cheap["zico"] < whole["zico"]  # fewer layers


def test_a_space_without_a_thin_form_is_scored_on_its_own_network(jobs):
    # 8 images a batch: fewer than cheap scoring takes, so nothing differs.
    assert score_architecture(replace(jobs[1], cheap=True)) == score_architecture(jobs[1])


def test_transfer_scores_of_fresh_networks_settle_their_batch_norms(jobs):
    """Of weights that were just drawn the running statistics say nothing."""
    job = replace(jobs[0], proxies=("logme", "linear_fit"))
    model = _built(job)
    batches = [(normalise(part.inputs, SPEC, 16), part.targets) for part in read_splits(job.batches).values()]
    by_hand = score(model, batches, resolve_proxies(job.proxies), settled=False)
    stale = score(model, batches, resolve_proxies(job.proxies))
    assert score_architecture(job) == pytest.approx(by_hand, rel=1e-3)
    assert by_hand["logme"] != pytest.approx(stale["logme"], rel=1e-3)


def test_transfer_scores_of_masks_look_at_pixels(split, tmp_path):
    spec, path = SPEC.model_copy(update={"kind": "segmentation"}), tmp_path / "masks.safetensors"
    masks = Split(split.inputs, (split.inputs[:, 0] > 128).to(torch.uint8))
    save_batches(path, masks, count=2, size=8, seed=1)
    architecture = make_space("mobile", spec).smallest().model_dump(mode="json")
    found = score_architecture(ScoringJob("mobile", spec, architecture, path, ("knn",), seed=7))
    right = found["knn"] / 100 * 2 * 8 * 8  # batches, samples, places of each
    assert right == pytest.approx(round(right)) and right > 0


def _built(job: ScoringJob) -> torch.nn.Module:
    space = make_space(job.space, job.spec)
    architecture = space.read(job.architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(job.seed, "score", architecture.key()))
        return space.build(architecture)
