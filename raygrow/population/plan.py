"""The plan of a campaign: every section of a configuration as a plain frozen value.

``raygrow.config`` builds these from YAML; nothing here knows YAML, Ray or MLflow. The text under each field is what
``raygrow validate`` and the documentation show. Ranges are checked on construction.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from raygrow.architecture import (
    ACTIVATIONS,
    FAMILIES,
    GROWING_MOVES,
    AbstractFamily,
    Architecture,
    Palette,
    family_named,
    forward_flops,
)
from raygrow.data import AbstractSource
from raygrow.errors import ConfigError
from raygrow.growth.initializers import AbstractInitializer
from raygrow.growth.measurements import measurement_named
from raygrow.nn import NewMoments, NewRate, OptimizerKind, OptimizerPlan
from raygrow.population.lengths import Length, check_length
from raygrow.population.pool_plan import PoolPlan, Section, check_least
from raygrow.population.selection import AbstractSelection, Auction
from raygrow.strategies import AbstractStrategy
from raygrow.training.augment import Augment


@dataclass(frozen=True, kw_only=True)
class Campaign(Section):
    """Name, seed and length of the campaign."""

    name: str = "campaign"
    """Name of the campaign: letters, digits, dots, dashes and underscores."""
    seed: int = 0
    """Seed of everything random, 0 or more."""
    rounds: int = 8
    """Most rounds of growth, 0 or more; 0 trains the start only."""
    mode: Literal["sync"] = "sync"
    """``sync``: a round is decided when every member has reported."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name) or self.name.startswith("."):
            raise ValueError(f"`name` takes letters, digits, dots, dashes and underscores, but got {self.name!r}")
        check_least(0, seed=self.seed, rounds=self.rounds)


@dataclass(frozen=True, kw_only=True)
class NetworkPlan(Section):
    """Which kind of network grows, where it starts and what new nodes are made of."""

    family: str = "dag"
    """``dag``: any directed acyclic graph, from a linear model; ``mlp``: dense layers in a chain; ``vgg``: convolutions in a
    chain; ``resnet``: residual streams; ``mixer``: blocks over patches and over channels. The last three take images and
    signals."""
    activation: str = "relu"
    """Activation of new nodes: relu, tanh, gelu, silu, elu or softplus."""
    norm: Literal["none", "batch", "layer", "group"] = "none"
    """Normalisation of hidden layers, before their activation. Units added together are normalised together in ``layer`` and
    ``group``, so that old ones compute what they did."""
    dropout: float = 0.0
    """Share of the values of a hidden layer that training sets to 0, in [0, 1)."""
    kernels: tuple[int, ...] = (3,)
    """Sizes of convolutions on offer, odd, the smallest first; the start takes the first. A mixer has none."""
    cells: int = 4
    """A vector reads a map through at most so many means a dimension, at least 1; resnet and mixer through one."""
    dense_on_maps: bool = False
    """Whether dag offers dense nodes that read a map, beside convolutions."""
    start: Literal["linear", "convolution"] = "linear"
    """Of dag on an image or signal: the linear model of all its values, or one convolution of one channel to a linear head."""
    widths: tuple[int, ...] | None = None
    """Units of each hidden layer (mlp), channels of each stage (vgg, resnet) or of the stream (mixer) at the start, each at
    least 1; null: 4; 4 and 8; 8 and 16; 16."""
    patch: int = 4
    """Length of a mixer's patches in each dimension, at least 1; it must divide the positions of an example."""

    def __post_init__(self) -> None:
        known = [name for name in ACTIVATIONS if name != "identity"]
        if self.activation not in known:
            raise ValueError(f"`activation` must be one of {', '.join(known)}, but got {self.activation!r}")
        names = [family.name for family in FAMILIES]
        if self.family not in names:
            raise ValueError(f"`family` must be one of {', '.join(names)}, but got {self.family!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`0 <= dropout < 1` must hold, but got {self.dropout}")
        if not self.kernels or min(self.kernels) < 1 or any(k % 2 == 0 for k in self.kernels):
            raise ValueError(f"`kernels` must name odd sizes of at least 1, but got {list(self.kernels)}")
        check_least(
            1, cells=self.cells, patch=self.patch, **{f"widths.{i}": w for i, w in enumerate(self.widths or ())}
        )
        chosen = self._family
        if self.start not in chosen.starts:
            raise ValueError(f"`start: {self.start}` is for dag; {self.family} has one start")
        if self.widths is not None and not (self.widths and chosen.widths):
            raise ValueError(
                f"`widths` must name at least one of mlp, vgg, resnet or mixer, but got {list(self.widths)} for {self.family}: "
                "write null"
            )

    @property
    def _family(self) -> AbstractFamily:
        return family_named(self.family)

    @property
    def palette(self) -> Palette:
        """What new nodes are made of."""
        return self._family.palette(self)

    @property
    def moves(self) -> tuple[str, ...]:
        """Kinds of move that the family makes where none are named."""
        return self._family.moves

    @property
    def known_moves(self) -> tuple[str, ...]:
        """Kinds of move that it has."""
        return (*self._family.moves, *self._family.more_moves)


@dataclass(frozen=True, kw_only=True)
class Training(Section):
    """How existing weights are trained."""

    optimizer: OptimizerKind = "adam"
    """``adam``, or ``sgd`` with momentum 0.9."""
    lr: float = 0.01
    """Learning rate, constant while growing; above 0."""
    batch_size: int = 32
    """Examples a step, at least 1."""
    examples_per_round: Length = "0.5 epochs, at least 2000"
    """Training examples of each member before each probe, 0 or more; also epochs, "1 epoch" or "1 epoch, at least 2000"."""
    final_examples: Length = "20 epochs"
    """Training examples of the final anneal by half a cosine, 0 or more; also epochs."""
    final_lr: float | None = None
    """Learning rate the final anneal begins at, above 0; null: ``lr``."""
    new_steps: int = 500
    """Steps for which the weights of an adopted move are new, at least 1; the options below that name new weights hold so
    long."""
    new_lr: NewRate = "same"
    """Learning rate of new weights: ``same`` as all; ``norm``: times their norm / that of the first weights of their matrix."""
    warmup_steps: int = 0
    """Steps over which the learning rate of new weights rises linearly, 0 to ``new_steps``."""
    new_moments: NewMoments = "mean"
    """Adam's second moment of new weights of an old matrix: its ``mean``, or ``fresh``: 0, corrected by their own age."""
    clip: float | None = None
    """Most that the norm of a network's gradients may be, of new and old weights apart; above 0; null: no limit."""
    weight_decay: float = 0.0
    """Decoupled weight decay, per unit of learning rate and step, 0 or more; new weights and their biases do not decay."""
    augment: Augment = field(default_factory=Augment)
    """How images and signals vary in training: ``shift``, ``flip`` and ``cutout``; forks of a probe see the same."""

    def __post_init__(self) -> None:
        for name, rate in (("lr", self.lr), ("final_lr", self.final_lr)):
            if rate is not None and not (rate > 0 and math.isfinite(rate)):
                raise ValueError(f"`{name} > 0` must hold, but got {rate}")
        if self.clip is not None and not (self.clip > 0 and math.isfinite(self.clip)):
            raise ValueError(f"`clip > 0` must hold, but got {self.clip}")
        check_least(1, batch_size=self.batch_size, new_steps=self.new_steps)
        check_least(0, warmup_steps=self.warmup_steps, weight_decay=self.weight_decay)
        if self.warmup_steps > self.new_steps:
            raise ValueError(f"`warmup_steps <= new_steps` must hold, but got {self.warmup_steps} > {self.new_steps}")
        if self.lr * self.weight_decay >= 1:
            raise ValueError(f"`lr * weight_decay < 1` must hold, but got {self.lr} * {self.weight_decay}")
        check_length("examples_per_round", self.examples_per_round, 0)
        check_length("final_examples", self.final_examples, 0)

    def optimizer_plan(self, lr: float) -> OptimizerPlan:
        """The optimiser at this rate."""
        return OptimizerPlan(
            self.optimizer, lr, self.new_lr, self.warmup_steps, self.new_moments, self.clip, self.weight_decay,
            self.new_steps,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Growth(Section):
    """Which moves, in which sizes, at what price."""

    moves: tuple[str, ...] | None = None
    """Kinds of move: widen, add_node, add_edge, insert_layer, add_block, prune, of those that the family has; null: all, but
    insert_layer of a dag."""
    units: tuple[int, ...] = (16, 32, 64, 128)
    """Sizes on offer, in units, each at least 1."""
    candidates: int = 2
    """Most candidates a member probes in a round, at least 1."""
    statistics_examples: int = 2048
    """Training examples the statistics are taken on, at least 4; all of train where it has fewer."""
    price: float | None = None
    """Loss per added FLOP that a move must beat, 0 or more; null: 0.05 x loss of the best constant / FLOP budget."""
    patience: int = 2
    """Rounds without an adopted move after which a member grows no more, at least 1. One whose probes all lie more than two
    standard errors below their price counts twice, one whose worthy moves were outbid not at all."""

    def __post_init__(self) -> None:
        known = [move.kind for move in GROWING_MOVES]
        for kind in self.moves or ():
            if kind not in known:
                raise ValueError(f"`moves` takes {', '.join(known)}, but got {kind!r}")
        if self.moves == () or not self.units:
            raise ValueError("`moves` and `units` must each name at least one")
        for count in self.units:
            check_least(1, units=count)
        check_least(1, candidates=self.candidates, patience=self.patience)
        check_least(4, statistics_examples=self.statistics_examples)
        check_least(0, price=self.price)


@dataclass(frozen=True, kw_only=True)
class Probe(Section):
    """How long candidates are tried beside their control."""

    examples: Length = "0.5 epochs, at least 2000"
    """Training examples of each fork, at least 1; also epochs."""
    blocks: int = 8
    """Segments of a probe and blocks of validation (the steps of mdl's code), at least 1."""

    def __post_init__(self) -> None:
        check_length("examples", self.examples, 1)
        check_least(1, blocks=self.blocks)


@dataclass(frozen=True, kw_only=True)
class Member(Section):
    """One network and the strategy that grows it."""

    name: str
    """Unique in the campaign: letters, digits, dots, dashes and underscores."""
    strategy: AbstractStrategy
    """Addition strategy: ``kind`` and its parameters; see ``raygrow strategies``."""
    initializer: AbstractInitializer
    """How new weights begin: ``kind`` and its parameters."""
    seed: int = 0
    """Members with the same seed see the same examples in the same order; 0 or more."""
    training: Training = field(default_factory=Training)
    """Overrides of the campaign's ``training`` keys."""
    growth: Growth = field(default_factory=Growth)
    """Overrides of the campaign's ``growth`` keys."""
    probe: Probe = field(default_factory=Probe)
    """Overrides of the campaign's ``probe`` keys."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"`name` takes letters, digits, dots, dashes and underscores, but got {self.name!r}")
        check_least(0, seed=self.seed)
        for measurement in self.strategy.measures:
            measurement_named(measurement)


@dataclass(frozen=True, kw_only=True)
class Budget(Section):
    """What the campaign may not exceed."""

    max_flops_per_example: int | None = None
    """Forward FLOPs per example of any network, at least 1; null: no limit."""
    max_params: int | None = None
    """Parameters of any network, at least 1; null: no limit."""
    max_train_flops: float | None = None
    """Training FLOPs of the whole population, checked between rounds, at least 1; null: no limit."""

    def __post_init__(self) -> None:
        check_least(
            1,
            max_flops_per_example=self.max_flops_per_example,
            max_params=self.max_params,
            max_train_flops=self.max_train_flops,
        )


@dataclass(frozen=True, kw_only=True)
class CheckpointPlan(Section):
    """Which checkpoints stay."""

    keep: Literal["heads", "all"] = "heads"
    """``heads``: every network that was a member's head; ``all``: every fork of every probe too."""


@dataclass(frozen=True, kw_only=True)
class Tracking(Section):
    """Where MLflow shows the lineage."""

    enabled: bool = True
    """false: no MLflow at all; the ledger has everything."""
    uri: str | None = None
    """MLflow tracking URI; null: a SQLite store in the campaign's folder."""
    experiment: str = "raygrow"
    """MLflow experiment."""


@dataclass(frozen=True, kw_only=True)
class Plan(Section):
    """Everything a campaign is told."""

    data: AbstractSource
    """Where examples come from: ``kind`` and its parameters."""
    members: tuple[Member, ...]
    """The population."""
    campaign: Campaign = field(default_factory=Campaign)
    network: NetworkPlan = field(default_factory=NetworkPlan)
    training: Training = field(default_factory=Training)
    growth: Growth = field(default_factory=Growth)
    probe: Probe = field(default_factory=Probe)
    selection: AbstractSelection = field(default_factory=Auction)
    """How accepted moves are granted: ``kind`` and its parameters."""
    budget: Budget = field(default_factory=Budget)
    pool: PoolPlan = field(default_factory=PoolPlan)
    checkpoints: CheckpointPlan = field(default_factory=CheckpointPlan)
    tracking: Tracking = field(default_factory=Tracking)

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not names:
            raise ValueError("`members` must name at least one")
        if len(set(names)) != len(names):
            raise ValueError(f"names of `members` must be distinct, but got {names}")
        for i, member in enumerate(self.members):
            if missing := sorted({*(member.growth.moves or ())} - {*self.network.known_moves}):
                raise ValueError(
                    f"`members.{i}.growth.moves`: `network.family` {self.network.family!r} has no {', '.join(missing)}; it has "
                    f"{', '.join(self.network.known_moves)}"
                )
            begins, activation = member.initializer, self.network.activation
            if not begins.supports_activation(activation):
                known = ", ".join(a for a in ACTIVATIONS if a != "identity" and begins.supports_activation(a))
                raise ValueError(
                    f"`members.{i}.initializer`: {kind_of(begins)} cannot begin units of `network.activation` "
                    f"{activation!r}; choose another initializer, or one of {known}"
                )

    def moves(self, member: Member) -> tuple[str, ...]:
        """Kinds of move that a member may make."""
        return self.network.moves if member.growth.moves is None else member.growth.moves

    def member(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)


@dataclass(frozen=True)
class Facts:
    """What the data say of a campaign, settled before it begins.

    Attributes:
        task: classification or regression.
        inputs, outputs: features; classes or targets.
        train_rows: examples that epochs refer to.
        constant_loss: loss of the best constant prediction on train.
        shape: (channels, height, width) or (channels, length) of an example; () for a plain vector.
    """

    task: Literal["classification", "regression"]
    inputs: int
    outputs: int
    train_rows: int
    constant_loss: float
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # The ledger keeps it as a list.
        object.__setattr__(self, "shape", tuple(self.shape))

    def start(self, network: NetworkPlan) -> Architecture:
        """The network of the first round.

        Raises:
            ConfigError: the family cannot read such examples.
        """
        return family_named(network.family).start(self.inputs, self.shape, self.outputs, network)

    def check(self, plan: Plan) -> None:
        """Refuse what these data do not allow.

        Raises:
            ConfigError: a member augments examples that have no shape.
        """
        for i, member in enumerate(plan.members):
            try:
                member.training.augment.check(self.shape)
            except ValueError as error:
                raise ConfigError(f"`members.{i}.training.augment`: {error}") from None

    def flops_scale(self, plan: Plan) -> int:
        """FLOPs per example that a campaign may come to: its budget, or 16 times the start's."""
        return plan.budget.max_flops_per_example or 16 * forward_flops(self.start(plan.network))

    def price(self, growth: Growth, plan: Plan) -> float:
        """Loss per added FLOP."""
        if growth.price is not None:
            return growth.price
        return 0.05 * self.constant_loss / self.flops_scale(plan)


def kind_of(thing: Any) -> str:
    """What names a strategy, initializer or selection rule: its ``kind``, or ``module:Class`` for a user's own."""
    cls = type(thing)
    if cls.__module__.startswith("raygrow."):
        return str(thing.kind)
    return f"{cls.__module__}:{cls.__qualname__}"
