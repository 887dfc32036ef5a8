"""What runs in a model: which calls are live, what is multiplied wherever it is written, what is refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from edgewright.core.errors import BadInput
from edgewright.proxy.base import score
from edgewright.proxy.calls import left_as_it_was, refuse_other_weights, run_calls, weighted_layers
from edgewright.proxy.resolve import resolve_proxies


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.unread, self.of_zeros, self.after_zeros = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.norm, self.act = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        self.unread(x)
        zeros = self.after_zeros(self.of_zeros(torch.zeros_like(x)))
        y = self.norm(x)
        y += zeros
        return self.head(self.act(y).mean((2, 3)))


def test_live_is_from_the_input_to_the_logits(batches):
    model = Net()
    with left_as_it_was(model):
        ran = run_calls(model, batches(1)[0][0], live=True)
        plain = run_calls(model, batches(1)[0][0], live=False)
    calls = ran.calls
    assert {call.name for call in calls if not call.live} == {"unread", "of_zeros", "after_zeros"}
    assert {call.name for call in calls if call.live} == {"stem", "norm", "act", "head"}
    shapes = [(call.name, call.input_shape, call.output_shape) for call in calls]
    assert [(call.name, call.input_shape, call.output_shape) for call in plain.calls] == shapes
    layers = ["stem", "unread", "of_zeros", "head"]
    assert [(product.name, product.live) for product in ran.products] == [(n, n in ("stem", "head")) for n in layers]
    assert all(call.live is None for call in plain.calls)


def test_a_network_that_does_not_see_its_input_is_dead(batches):
    class Blind(Net):
        def forward(self, x):
            return self.head(torch.ones(len(x), 4)) + 0 * super().forward(torch.ones_like(x))

    model = Blind()
    with left_as_it_was(model):
        ran = run_calls(model, batches(1)[0][0], live=True)
    assert not any(call.live for call in (*ran.calls, *ran.products)) and ran.macs() > ran.macs(live=True) == 0


class Reader(nn.Module):
    """Series (B, 5, 9): attention by hand and torch's own, over tokens with a table of their places, then a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(5, 8, 3, padding=1)
        self.places = nn.Parameter(torch.zeros(1, 9, 8))
        self.query = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.gru = nn.GRU(8, 6, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).transpose(1, 2) + self.places
        x = x + (self.query(x) @ x.transpose(1, 2)).softmax(-1) @ x
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.gru(x)[0][:, -1])


def test_products_are_seen_wherever_they_are_written():
    with left_as_it_was(model := Reader()):
        ran = run_calls(model, torch.randn(3, 5, 9), live=True)
    by_hand = {
        "conv": [9 * 8 * 5 * 3],
        "query": [9 * 8 * 8],
        "": [9 * 9 * 8] * 2,
        "attention": [4 * 9 * 8 * 8 + 2 * 9 * 9 * 8],
        "gru": [9 * 3 * 6 * (8 + 6)],
        "head": [6 * 4],
    }
    found: dict[str, list[int | None]] = {}
    for product in ran.products:
        found.setdefault(product.name or "", []).append(product.macs)
    found[""] = found.pop("matmul")
    assert found == by_hand and all(product.live for product in ran.products)
    assert score(Reader(), [(torch.randn(3, 5, 9), None)], resolve_proxies(["macs"]))["macs"] == ran.macs()


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"mix": nn.Bilinear(5, 5, 4)})

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :5]
        return self.inner["mix"](x, x)


def test_what_cannot_be_counted_is_named(batches):
    with pytest.raises(BadInput, match=r"'inner\.mix' is a bilinear, whose multiply-adds cannot be counted"):
        score(Bilinear(), batches(1), resolve_proxies(["macs"]))


class Plain(nn.Module):
    """A layer of its own, written without `nn.Linear`; a table of places beside it."""

    def __init__(self, places: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 126))
        self.places = nn.Parameter(torch.randn(2, 9, 7))
        self.head = nn.Linear(3 if not places else 126, 4)
        self.alone = places

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.places).flatten(1)
        return self.head(x if self.alone else x @ self.weight.T)


@pytest.mark.parametrize("name", ["zico", "fisher", "synflow", "gradsign", "grad_norm"])
def test_weights_that_a_score_would_pass_over_are_refused(name, batches):
    with pytest.raises(BadInput, match=r"the layer '' \(Plain\) multiplies by weights that this score cannot speak of"):
        score(Plain(places=False), batches(2), resolve_proxies([name]))


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.GRU(5, 4, batch_first=True), "GRU"),
        (nn.LSTM(5, 4, 2, bidirectional=True, batch_first=True), "LSTM"),
        (nn.MultiheadAttention(5, 1, batch_first=True), "MultiheadAttention"),
        (nn.TransformerEncoderLayer(5, 1, 7, batch_first=True), "MultiheadAttention"),
        (parametrizations.weight_norm(nn.Linear(5, 4)), "ParametrizedLinear"),
    ],
)
def test_layers_of_several_weights_are_refused_by_name(layer, named):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, x, x)[0] if named == "MultiheadAttention" == type(layer).__name__ else self.layer(x)

    with left_as_it_was(model := Net()), pytest.raises(BadInput, match=rf"'layer.*' \({named}\) multiplies"):
        refuse_other_weights(model, torch.randn(2, 6, 5))


def test_tables_multiply_nothing():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(11, 6), nn.Linear(6, 11)
            self.out.weight = self.words.weight
            self.places = nn.Parameter(torch.zeros(7, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.words(x) + self.places)

    with left_as_it_was(model := Words()):
        refuse_other_weights(model, torch.zeros(2, 7, dtype=torch.int64))
    assert list(weighted_layers(model)) == ["out"]


def test_words_are_followed_from_where_they_are_looked_up():
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.deep = nn.Embedding(11, 6), nn.Linear(6, 5)
            self.unread, self.head = nn.Linear(6, 9), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.words(x)
            self.unread(x)
            return self.head(self.deep(x).relu().mean(1))

    values = score(Tagger(), [(torch.randint(0, 11, (4, 7)), None)], resolve_proxies(["macs", "live_macs"]))
    assert values == {"macs": 7 * 6 * (5 + 9) + 5 * 3, "live_macs": 7 * 6 * 5 + 5 * 3}


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_what_runs_unseen_is_refused(batches):
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sigmoid()))
    model = nn.Sequential(scripted, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for name in ("macs", "zico"):
        with pytest.raises(BadInput, match="the layer '0' is a scripted module"):
            score(model, batches(2), resolve_proxies([name]))
    assert score(model, [], resolve_proxies(["params"]))["params"] == 4 * 2 * 9 + 4 + 4 * 3 + 3
