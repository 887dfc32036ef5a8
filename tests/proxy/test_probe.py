"""Passes of a proxy's own leave the model alone; blocks are found."""

import pytest
import torch
from torch import nn

from edgewright.model.blocks import Stage
from edgewright.proxy import probe
from edgewright.proxy.base import Evidence
from made_network import cell_net, mobile_net


def evidence_of(model: nn.Module, inputs: torch.Tensor) -> Evidence:
    nothing = torch.zeros(())
    return Evidence(model, 0, inputs, None, nothing, None)


def test_a_pass_equals_the_models_own_and_leaves_it_alone(chain, chain_batch):
    chain.train()
    before = {name: tensor.clone() for name, tensor in chain.state_dict().items()}
    seen = []
    with torch.random.fork_rng():
        found = probe.run(evidence_of(chain, chain_batch[0]), chain_batch[0], lambda *call: seen.append(call[0]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in chain.state_dict().items())
    assert not found.requires_grad and chain.last[1].inplace
    assert seen[0] == "stem.0" and seen[-1] == "classifier" and "body.1" in seen
    assert all(not module._forward_hooks for module in chain.modules())
    assert torch.allclose(found, chain(chain_batch[0]), rtol=1e-4, atol=1e-4)


def test_hooks_and_flags_come_back_after_an_error(chain, chain_batch):
    def fail(*call: object) -> None:
        raise RuntimeError("stop")

    with torch.random.fork_rng(), pytest.raises(RuntimeError, match="stop"):
        probe.run(evidence_of(chain, chain_batch[0]), chain_batch[0], fail)
    assert chain.last[1].inplace and not chain.stem[0]._forward_hooks


def test_redrawn_weights_have_the_deviation_asked_for():
    model = nn.Sequential(nn.Conv2d(8, 40, 5), nn.BatchNorm2d(40), nn.Linear(40, 300))
    generator = torch.Generator().manual_seed(0)
    plain, he = probe.redrawn(model, generator), probe.redrawn(model, generator, he=True)
    assert float(plain["0.weight"].std()) == pytest.approx(1, rel=0.05)
    assert float(he["0.weight"].std()) == pytest.approx((2 / 200) ** 0.5, rel=0.05)
    assert float(he["2.weight"].std()) == pytest.approx((2 / 40) ** 0.5, rel=0.05)
    assert bool((plain["1.weight"] == 1).all()) and not bool(plain["0.bias"].any() or plain["1.bias"].any())


def test_blocks_of_our_families(chain):
    assert probe.blocks(chain) == ("stem", "body.0", "body.1", "body.2")
    cells = cell_net(3, 5, ("skip_connect",) * 6)
    assert len([name for name in probe.blocks(cells) if "stage" in name]) == 15
    assert probe.blocks(cells)[:2] == ("stem", "stage1.0") and "reduce1" in probe.blocks(cells)
    stage = Stage(width=16, depth=2, stride=2, kind="inverted", kernel=3, expansion=2, squeeze=True)
    mobile = mobile_net(3, 5, 8, 1, (stage, stage), 32)
    assert probe.blocks(mobile) == ("stem", "stage1.0", "stage1.1", "stage2.0", "stage2.1", "head.0")
    assert probe.blocks(nn.ModuleDict({"net": mobile}))[0] == "net.stem"
