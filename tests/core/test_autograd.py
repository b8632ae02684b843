"""Training through autograd: against the packed engine, and against torch's own optimiser and modules."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from raygrow.nn import Network, OptimizerKind, OptimizerPlan, clone
from raygrow.nn.losses import CrossEntropy
from raygrow.testing import a_network
from raygrow.training import Examples, Fork, Lesson, teach
from raygrow.training.autograd import AutogradPack
from raygrow.training.pack import Pack
from tests.core.test_maps import a_map_network, draw


def some(n: int, inputs: int) -> Examples:
    return Examples(draw(n, inputs, seed=20), torch.randint(3, (n,), generator=torch.Generator().manual_seed(21)))


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.parametrize("averaged", [False, True])
def test_dense_networks_learn_what_they_learn_packed(kind: OptimizerKind, averaged: bool) -> None:
    data, order = some(90, 5), torch.randperm(90)
    forks = [Fork(a_network("gelu", seed=seed), {}) for seed in (0, 1)]
    found = []
    for engine in (Pack, AutogradPack):
        pack = engine([forks], CrossEntropy(), OptimizerPlan(kind, 0.01), averaged)
        pack.train([data], [order], 16, anneal=6)
        networks = [clone(fork.network) for fork in forks]
        pack.write([networks])
        found.append((networks, pack.states()[0]))
    for one, other in zip(*(networks for networks, _ in found), strict=True):
        for name, parameter in one.named.items():
            assert torch.allclose(parameter, other.named[name], rtol=1e-9, atol=1e-11), name
    for mine, theirs in zip(*(states for _, states in found), strict=True):
        for name, entries in mine.items():
            for key, value in entries.items():
                assert torch.allclose(value, theirs[name][key], rtol=1e-7, atol=1e-10), (name, key)


def by_hand(
    network: Network, norm: str, x: Tensor, batches: Sequence[Tensor], y: Tensor, lr: float
) -> dict[str, Tensor]:
    """The same network as torch modules would write it, trained by ``torch.optim.Adam``; its tensors by name."""
    p = {name: tensor.detach().clone().requires_grad_() for name, tensor in network.named.items()}
    running = {name: tensor.clone() for name, tensor in network.moments.items()}
    optimizer = torch.optim.Adam(list(p.values()), lr=lr)

    def normed(z: Tensor, node: str) -> Tensor:
        gain, shift = p.get(f"gains.{node}"), p.get(f"shifts.{node}")
        if norm == "batch" and gain is not None:
            mean, variance = running[f"running.{node}_mean"], running[f"running.{node}_variance"]
            return F.batch_norm(z, mean, variance, gain, shift, training=True)
        if norm == "group" and gain is not None:
            return F.group_norm(z, 1, gain, shift)
        return z

    def forward(x: Tensor) -> Tensor:
        x = x.view(-1, 2, 8, 7)
        h1 = F.max_pool2d(torch.tanh(normed(F.conv2d(x, p["weights.input>h1"], p["biases.h1"], padding=1), "h1")), 2)
        h2 = torch.relu(normed(F.conv2d(h1, p["weights.h1>h2"], p["biases.h2"], padding=1), "h2"))
        h3 = F.gelu(F.conv2d(h1, p["weights.h1>h3"], p["biases.h3"]) + h2)
        cells = F.adaptive_avg_pool2d(h3, 2).flatten(1)
        h4 = F.silu(normed(F.linear(cells, p["weights.h3>h4"].flatten(1), p["biases.h4"]), "h4"))
        out = F.linear(h4, p["weights.h4>output"], p["biases.output"])
        out = out + h3.mean((2, 3)) @ p["weights.h3>output"].flatten(1).T
        return out + x.flatten(1) @ p["weights.input>output"].flatten(1).T

    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(forward(x[batch]), y[batch]).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in (p | running).items()}


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_maps_learn_what_torch_modules_learn(norm: str) -> None:
    network = a_map_network(norm)
    data, order = some(60, 112), torch.randperm(60)
    wanted = by_hand(network, norm, data.x, torch.split(order, 16), data.y, 0.01)
    lesson = Lesson([Fork(network, {})], data, [order], 16, CrossEntropy(), OptimizerPlan("adam", 0.01))
    ((learned,),) = teach([lesson])
    for name, tensor in (learned.network.named | learned.network.moments).items():
        assert torch.allclose(tensor, wanted[name], rtol=1e-8, atol=1e-9), name


def test_what_a_network_of_maps_learns_does_not_depend_on_its_company() -> None:
    data, order = some(40, 112), torch.randperm(40)
    plan = OptimizerPlan("adam", 0.01)
    lessons = [
        Lesson([Fork(a_map_network("batch", seed=seed), {}) for seed in seeds], data, [order, order], 8, CrossEntropy(), plan,
               averaged=True)
        for seeds in ((0, 1), (2,))
    ]  # fmt: skip
    together = teach(lessons)
    alone = [teach([lesson])[0] for lesson in lessons]
    for some_learned, others in zip(together, alone, strict=True):
        for one, other in zip(some_learned, others, strict=True):
            for name, tensor in one.network.state_dict().items():
                assert torch.equal(tensor, other.network.state_dict()[name]), name


def test_averaged_weights_take_batch_moments_of_their_own() -> None:
    network = a_map_network("batch")
    data, order = some(64, 112), torch.randperm(64)
    lesson = Lesson([Fork(network, {})], data, [order], 16, CrossEntropy(), OptimizerPlan("adam", 0.05), averaged=True)
    ((learned,),) = teach([lesson])
    grown = learned.network
    z = grown.trace(data.x[order]).preactivations["h1"]
    variance, mean = torch.var_mean(z, (0, 2, 3))
    assert torch.allclose(grown.moments["running.h1_mean"], mean)
    assert torch.allclose(grown.moments["running.h1_variance"], variance)


def test_segments_without_examples_and_batches_of_one_leave_batch_norm_whole() -> None:
    """A probe of fewer steps than blocks has such segments, and any count of examples may end on one."""
    network = a_map_network("batch")
    data, none = some(17, 112), torch.empty(0, dtype=torch.long)
    heard: list[dict[str, Tensor]] = []
    lesson = Lesson(
        [Fork(network, {})], data, [none, torch.arange(17), none], 16, CrossEntropy(), OptimizerPlan("adam", 0.01),
        averaged=True, heard=lambda _, networks: heard.append({k: v.clone() for k, v in networks[0].state_dict().items()}),
    )  # fmt: skip
    teach([lesson])
    first, second, third = heard
    for name, tensor in network.state_dict().items():
        assert torch.equal(first[name], tensor), "nothing was learned yet"
        assert torch.isfinite(second[name]).all()
        assert torch.equal(third[name], second[name])
    assert any(not torch.equal(second[name], first[name]) for name in first)
