"""Every member of every registry tuple passes the contract tests that ship with the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from raygrow.architecture import AbstractMove, AddNode, Widen
from raygrow.growth.bottleneck import Residuals
from raygrow.growth.initializers import INITIALIZERS, AbstractInitializer
from raygrow.growth.measurements import MEASUREMENTS, AbstractMeasurement, Subject
from raygrow.growth.meter import Meter
from raygrow.growth.statistics import Pass, Sample
from raygrow.growth.step import unrecorded
from raygrow.nn import clone
from raygrow.nn.losses import LOSSES
from raygrow.population.selection import SELECTIONS
from raygrow.strategies import STRATEGIES
from raygrow.testing import (
    SOME_MOVES,
    InitializerContract,
    SelectionContract,
    StrategyContract,
    a_network,
    some_examples,
    with_activation,
)


class MeasurementContract:
    """What every measurement must keep; ``subject`` is the one under test."""

    subject: type[AbstractMeasurement]

    def _sites(self, initializer: AbstractInitializer) -> Iterator[Subject]:
        for activation in ("tanh", "relu"):
            for task, loss in LOSSES.items():
                network = a_network(activation)
                sample = Sample(*some_examples(task))
                passed = Pass(network, sample, loss, Meter())
                nodes = [node.name for node in network.arch.nodes[1:]]
                statistics = passed.statistics(nodes, Meter(), torch.Generator().manual_seed(0))
                found = Residuals(statistics.whole, Meter())
                for move in SOME_MOVES:
                    sizes = (1, 2, 4) if move.units else (0,)
                    moves = {size: _resized(with_activation(move, activation), size) for size in sizes}
                    site = moves[sizes[0]].place(network.arch)
                    assert site is not None
                    if initializer.can_begin(site):
                        yield Subject(site, moves, passed, found, initializer, 5, Meter())

    def _measured(self, initializer: AbstractInitializer) -> list[Mapping[int, float]]:
        return [self.subject().measure(at) for at in self._sites(initializer)]

    def test_gives_numbers_of_moves_on_offer_for_every_initializer(self) -> None:
        for cls in INITIALIZERS:
            for at in self._sites(cls()):
                measured = self.subject().measure(at)
                assert measured.keys() <= at.moves.keys()
                assert all(isinstance(value, float) and np.isfinite(value) for value in measured.values())

    def test_is_defined_somewhere_and_the_same_again(self) -> None:
        one, two = self._measured(INITIALIZERS[0]()), self._measured(INITIALIZERS[0]())
        assert any(one)
        assert one == two

    def test_an_instance_that_serves_many_sites_measures_each_as_if_alone(self) -> None:
        sites = list(self._sites(INITIALIZERS[0]()))[: len(SOME_MOVES)]
        shared = self.subject()
        assert [shared.measure(at) for at in sites] == [self.subject().measure(at) for at in sites]

    def test_measures_the_same_in_the_mode_of_a_growth_step(self) -> None:
        with unrecorded(a_network("tanh"), differentiates=self.subject.differentiates):
            found = self._measured(INITIALIZERS[0]())
        assert found == self._measured(INITIALIZERS[0]())

    def test_leaves_the_network_as_it_was(self) -> None:
        for at in self._sites(INITIALIZERS[0]()):
            before = clone(at.passed.network).state_dict()
            trace = at.passed.trace
            values = {name: rows.clone() for name, rows in trace.values.items()}
            self.subject().measure(at)
            assert all(torch.equal(value, before[name]) for name, value in at.passed.network.state_dict().items())
            assert at.passed.trace is trace
            assert all(torch.equal(rows, values[name]) for name, rows in trace.values.items())


def _resized(move: AbstractMove, size: int) -> AbstractMove:
    if isinstance(move, Widen):
        return Widen(move.node, size)
    return AddNode(move.sources, move.targets, size, move.activation) if isinstance(move, AddNode) else move


def _contract(base: type[Any], subject: type[Any]) -> type[Any]:
    return type(f"Test{subject.__name__}", (base,), {"subject": subject()})


for _base, _family in (
    (StrategyContract, STRATEGIES),
    (InitializerContract, INITIALIZERS),
    (SelectionContract, SELECTIONS),
):
    for _cls in _family:
        globals()[f"Test{_cls.__name__}"] = _contract(_base, _cls)


# Made anew for each network, so that the class itself is the subject.
for _measurement in MEASUREMENTS:
    _name = f"TestMeasured{_measurement.__name__}"
    globals()[_name] = type(_name, (MeasurementContract,), {"subject": _measurement})


def test_the_tuples_hold_what_they_should() -> None:
    kinds = [[cls().kind for cls in family] for family in (STRATEGIES, INITIALIZERS, SELECTIONS)]
    assert all(len(set(names)) == len(names) for names in kinds)
    assert {"mdl", "significance", "rl", "periodic", "random"} <= set(kinds[0])
    assert {"north", "senn", "firefly", "autogrow", "fragrow"} <= set(kinds[0])
    assert {"tiny", "gradmax", "random", "orthogonal", "north", "net2net", "firefly", "splitting", "senn"} <= set(
        kinds[1]
    )
    assert "variance_transfer" in kinds[1]
    assert {"independent", "auction"} <= set(kinds[2])
