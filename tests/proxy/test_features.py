"""What the last layer is given: which layer, in which mode, on which samples, and how it pairs with targets."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from edgewright.core.errors import BadInput
from edgewright.proxy.base import Proxy, of_features, score
from edgewright.proxy.features import MOST, Features
from edgewright.proxy.resolve import proxies
from edgewright.proxy.trees import end_to_end
from edgewright.task.kinds.resolve import make_kind
from edgewright.task.load import load_task
from made_features import changed, drawn, value

TRANSFER = [proxy for proxy in proxies().values() if "features" in proxy.needs]
by_name = pytest.mark.parametrize("proxy", TRANSFER, ids=lambda proxy: proxy.name)


def features_of(model: nn.Module, batches, **options) -> Features | None:
    """What a score is shown."""
    caught: list[Features] = []

    def keep(features: Features) -> float:
        caught.append(features)
        return 0.0

    init = of_features(keep)
    looks = Proxy(name="looks", source="", summary="", init=init, finish=float, needs=frozenset({"features"}))
    score(model, batches, [looks], **options)
    return caught[0] if caught else None


def read(model: nn.Module, batches, **options) -> Features:
    found = features_of(model, batches, **options)
    assert found is not None
    return found


def test_what_the_head_is_given_and_gives_without_dropout_and_by_running_statistics(small, batches):
    model = small()
    model.norm.running_mean.fill_(0.3)
    found = read(model, batches())
    inputs, targets = (torch.cat(part) for part in zip(*batches(), strict=True))
    model.eval()
    with torch.no_grad():
        x = model.stem(inputs)
        x = (x + torch.relu(model.norm(model.deep(x)))).mean((2, 3))
    assert torch.allclose(found.values, x.double(), atol=1e-6)
    assert torch.allclose(found.source, model.head(x).double(), atol=1e-6)
    assert torch.equal(found.targets, targets)


def test_statistics_are_taken_anew_where_they_are_not_the_weights_own_and_left_as_they_were(small, batches):
    model = small()
    model.norm.running_mean.fill_(50.0)
    before, momenta = copy.deepcopy(model.state_dict()), [model.norm.momentum, model.stem[1].momentum]
    stale, fresh = read(model, batches()), read(model, batches(), settled=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [model.norm.momentum, model.stem[1].momentum] == momenta and model.training
    settled = copy.deepcopy(model)
    for norm in (settled.norm, settled.stem[1]):
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for inputs, _ in batches():
            settled(inputs)
    assert torch.allclose(fresh.values, read(settled, batches()).values, atol=1e-6)
    assert not torch.allclose(fresh.values, stale.values, atol=1e-2)


def test_a_failing_pass_leaves_the_momentum_of_batch_norms(small, batches):
    model = small()

    def fail(*arguments: object) -> None:
        if model.norm.momentum is None:
            raise RuntimeError("no more memory")

    model.head.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no more memory"):
        features_of(model, batches(), settled=False)
    assert model.norm.momentum == 0.1


class Tokens(nn.Module):
    """Looks at 3 x 3 patches as tokens; every one is answered, and the answers are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 5, 3, 3), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(2).transpose(1, 2)).mean(1)


def test_a_head_over_places_or_tokens_is_averaged(batches):
    maps = nn.Sequential(nn.Conv2d(2, 5, 3, 2), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for model, inner in ((maps, maps[:2]), (tokens := Tokens(), tokens.body)):
        found = read(model, batches())
        inputs = torch.cat([x for x, _ in batches()])
        assert torch.allclose(found.values, inner(inputs).mean((2, 3)).double(), atol=1e-6)
        assert torch.allclose(found.source, model(inputs).double(), atol=1e-6)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.mean((2, 3)), self.weight)


class Tied(nn.Module):
    """Multiplies by the weight of a layer that it never calls, which is called as the operator is."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.linear = nn.Conv2d(2, 3, 1), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.body(x).mean((2, 3)), self.linear.weight)


def test_a_network_that_ends_in_something_else_is_named(batches):
    model = nn.Sequential(nn.Conv2d(2, 2, 1), Functional())
    for ending, name in ((model, "1"), (Tied(), "linear")):
        with pytest.raises(BadInput, match=rf"ends in '{name}' \(linear\).*choose another score"):
            features_of(ending, batches())


def test_a_layer_alone_and_one_whose_weight_is_made(batches):
    inputs = torch.cat([x for x, _ in batches()])
    alone, made = nn.Conv2d(2, 4, 1), nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(2 * 9 * 7, 4)))
    assert torch.allclose(read(alone, batches()).values, inputs.mean((2, 3)).double(), atol=1e-6)
    assert torch.equal(read(made, batches()).values, inputs.flatten(1).double())


@by_name
def test_logits_that_do_not_depend_on_the_input_rank_last(proxy, batches):
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(2, 3, 1), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.zeros(len(x), 3) * self.body(x).shape[1])

    assert score(Blind(), batches(), [proxy])[proxy.name] == -math.inf


@by_name
def test_one_sample_one_class_one_feature_constants_and_few(proxy):
    """Nothing crashes; what has a value is finite."""
    features = drawn(12, 3, 3)
    one_class = changed(features, targets=torch.full((12,), 2))
    for case in (drawn(2, 3, 2), one_class, drawn(9, 1, 3), changed(features, torch.full((12, 3), 0.1).double())):
        assert math.isfinite(value(proxy, case)) or proxy.name == "linear_fit", proxy.name
    value(proxy, drawn(1, 3, 2))
    lopsided = drawn(60, 4, 2)
    few = changed(lopsided, targets=torch.tensor([0] * 59 + [1]))
    assert math.isfinite(value(proxy, few))


def test_how_samples_are_batched_does_not_matter(small):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(65, 2, 9, 7, generator=generator), torch.arange(65) % 4
    whole = read(small(), [(x, y)])
    parts = read(small(), [(x[:1], y[:1]), (x[1:40], y[1:40]), (x[40:], y[40:])])
    assert torch.allclose(whole.values, parts.values, atol=1e-5) and torch.equal(whole.targets, parts.targets)


def test_of_many_samples_some_are_drawn_by_the_seed_and_keep_their_targets():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    x = torch.arange(3000.0)
    first, again, other = (read(model, [(x[:, None], x.long())], seed=seed) for seed in (1, 1, 2))
    assert len(first) == MOST and torch.equal(first.values[:, 0].long(), first.targets)
    assert torch.equal(first.targets, again.targets) and not torch.equal(first.targets, other.targets)
    assert first.targets.float().mean() == pytest.approx(1500, rel=0.05)  # not the first ones


def test_pixels_are_drawn_with_their_classes_and_what_is_ignored_is_not():
    kind = make_kind("segmentation", ("sky", "tree", "road"), {})
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 3, (5, 6, 9), generator=generator)
    x = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    targets = x.to(torch.uint8).clone()
    targets[1] = 255
    targets[2, :, 2:] = 255  # 6 places are left at half the size
    model = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 4, 1), nn.Conv2d(4, 3, 1))
    nn.init.ones_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    found = read(model, [(x[:, None].float(), targets)], examples=kind.examples, loss=kind.loss)
    assert len(found) == 8 + 0 + 6 + 8 + 8
    assert torch.equal(found.values[:, 2].long(), found.targets) and found.source.shape == (30, 3)
    again = read(model, [(x[:, None].float(), targets)], examples=kind.examples, loss=kind.loss)
    assert torch.equal(found.values, again.values)


def test_targets_that_do_not_pair_are_refused_in_words(batches):
    x = batches()[0][0]
    model = nn.Conv2d(2, 3, 1)
    with pytest.raises(BadInput, match=r"a class or numbers for each sample.* of shape \(9, 7\)"):
        features_of(model, [(x, torch.zeros(5, 9, 7, dtype=torch.int64))])
    parts = [{"name": "a", "kind": "classification", "names": ("x", "y")}]
    several = make_kind("several", ("a", "b"), {"parts": [*parts, {**parts[0], "name": "b"}]})
    with pytest.raises(BadInput, match="look at one target, and this task has several"):
        several.examples([x], {"a": batches()[0][1], "b": batches()[0][1]}, torch.Generator())


def test_several_inputs(batches):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(3, 4), nn.Conv2d(2, 4, 3), nn.Linear(4, 4)

        def forward(self, sound: Tensor, image: Tensor) -> Tensor:
            return self.head(self.left(sound) + self.right(image).mean((2, 3)))

    model = Two()
    pairs = [({"sound": torch.randn(5, 3), "image": x}, y) for x, y in batches()]
    whole, flat, loss = end_to_end(model, pairs, functional.cross_entropy)
    found = read(whole, flat, loss=loss)
    wanted = torch.cat([model.left(x["sound"]) + model.right(x["image"]).mean((2, 3)) for x, _ in pairs])
    assert torch.allclose(found.values, wanted.double(), atol=1e-5)


def test_numbers_for_targets(batches):
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 9 * 7, 3), nn.ReLU(), nn.Linear(3, 1))
    numbers = [(x, x.mean((1, 2, 3))) for x, _ in batches(2, 40)]
    kept = {proxy.name: proxy for proxy in TRANSFER}

    def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
        return functional.mse_loss(outputs[:, 0], wanted)

    found = score(model, numbers, [kept["logme"], kept["linear_fit"]], loss=loss)
    assert all(math.isfinite(one) for one in found.values()) and read(model, numbers).targets.shape == (80, 1)
    with pytest.raises(BadInput, match="knn needs one whole number"):
        score(model, numbers, [kept["knn"]], loss=loss)


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 24, 3, 2), nn.BatchNorm2d(24),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
        )  # fmt: skip


@pytest.fixture(scope="module")
def learned() -> dict[str, tuple[float, float]]:
    """Scores on digits that were not learned from: of a network that has learned others, and the best of fresh ones."""
    task = load_task("digits")
    x, y = task.train.inputs.float() / 8 - 1, task.train.targets
    model = net(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(model(x[400:]), y[400:]).backward()
        optimizer.step()
    batches = [(x[:400], y[:400])]
    found = score(model, batches, TRANSFER)
    fresh = [score(net(seed), batches, TRANSFER, settled=False) for seed in range(1, 4)]
    return {name: (found[name], max(one[name] for one in fresh)) for name in found}


@by_name
def test_a_network_that_has_learned_scores_higher_than_fresh_weights(proxy, learned):
    with_lesson, without = learned[proxy.name]
    assert with_lesson > without
