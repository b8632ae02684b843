"""What packed training is held against: one network trained by itself with autograd and torch.optim, and its FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygrow.nn import Network, OptimizerPlan, State, clone
from raygrow.training import Examples, Fork

MEANS = {"classification": nn.CrossEntropyLoss(), "regression": nn.MSELoss()}


@dataclass(frozen=True)
class Alone:
    """What became of a network.

    Attributes:
        network: with its last weights.
        averaged: with the running average of them.
        state: torch.optim's, by parameter name.
    """

    network: Network
    averaged: Network
    state: State


def optimizer_of(network: Network, plan: OptimizerPlan, state: State) -> torch.optim.Optimizer:
    """torch.optim's, going on from a state."""
    parameters = list(network.parameters())
    optimizer: torch.optim.Optimizer
    if plan.kind == "adam":
        optimizer = torch.optim.Adam(parameters, lr=plan.lr)
    else:
        optimizer = torch.optim.SGD(parameters, lr=plan.lr, momentum=0.9)
    for name, parameter in network.named_parameters():
        if name in state:
            optimizer.state[parameter] = {key: value.clone() for key, value in state[name].items()}
    return optimizer


def trained_alone(
    fork: Fork,
    data: Examples,
    orders: Sequence[Tensor],
    batch_size: int,
    task: str,
    plan: OptimizerPlan,
    anneal: bool = False,
) -> Alone:
    """Train a copy of the fork on one order of examples after the other."""
    network = clone(fork.network)
    optimizer = optimizer_of(network, plan, fork.state)
    average = [p.detach().clone() for p in network.parameters()]
    taken = 0
    segments = [torch.split(order, batch_size) if len(order) else () for order in orders]
    steps = sum(map(len, segments))
    for picks in segments:
        for pick in picks:
            cosine = (1.0 + math.cos(math.pi * taken / steps)) / 2.0 if anneal else 1.0
            optimizer.param_groups[0]["lr"] = plan.lr * cosine
            optimizer.zero_grad()
            MEANS[task](network(data.x[pick]), data.y[pick]).backward()
            optimizer.step()
            taken += 1
            # Equal weights over the first 50 steps, then 2 % for each new one.
            share = 1.0 / taken if taken <= 50 else 0.02
            average = [
                (1.0 - share) * a + share * p.detach() for a, p in zip(average, network.parameters(), strict=True)
            ]
    averaged = clone(network)
    with torch.no_grad():
        for parameter, value in zip(averaged.parameters(), average, strict=True):
            parameter.copy_(value)
    state = {name: dict(optimizer.state[parameter]) for name, parameter in network.named_parameters()}
    return Alone(network, averaged, state)
