"""What a configuration would do, before it does it: nothing is run and nothing is created."""

from __future__ import annotations

import os
from itertools import groupby

from raygrow.app import Prepared
from raygrow.architecture import Architecture, forward_flops, legal_moves, params, training_flops
from raygrow.comparing import check_data
from raygrow.comparison.plan import ComparisonPlan
from raygrow.config import resolved, to_yaml
from raygrow.population.lengths import examples_of
from raygrow.population.plan import Member, kind_of

SECONDS_PER_STEP = 5e-5
"""Of a packed training step on one core; bound by overhead, so nearly the same for all tiny networks."""

SECONDS_PER_NETWORK = 2e-5
"""That each network of the pack adds to a step."""

SECONDS_PER_GROWTH = 0.1
"""Of the statistics and solves of a member's round."""

STARTUP_SECONDS = 8.0


def describe_campaign(ready: Prepared) -> str:
    """The resolved configuration, the data, the first moves, and estimates of time, memory and disk."""
    plan, facts, data = ready.plan, ready.facts, ready.dataset
    start = facts.start(plan.network)
    splits = ("train", "search", "validation", "test")
    rows = ", ".join(f"{len(getattr(data, name))} {name}" for name in splits)
    lines = [
        "# resolved configuration",
        to_yaml(resolved(plan)).rstrip(),
        "",
        f"data: {data.name}, {facts.task}{_shaped(data.shape)}; rows: {rows}",
        f"  uses {len(data.used)} columns: {_listed(data.used)}",
        f"  drops {len(data.dropped)} columns: {_listed(data.dropped)}" if data.dropped else "  drops no column",
        *(f"  warning: {warning}" for warning in data.warnings),
        f"start: {start} ({forward_flops(start)} FLOPs per example, {params(start)} parameters); "
        f"the best constant prediction has loss {facts.constant_loss:.4g}",
    ]
    for member in plan.members:
        lines += _describe_member(ready, member, start)
    lines += ["", *_estimates(ready, start)]
    return "\n".join(lines)


def describe_comparison(plan: ComparisonPlan) -> str:
    """The resolved configuration, the arms and the data sets of a comparison.

    Raises:
        Refused: an arm does not go together with a data set.
    """
    missing = check_data(plan, set(plan.data))
    seeds = plan.comparison.seeds
    lines = [
        "# resolved configuration",
        to_yaml(plan.resolved).rstrip(),
        "",
        f"{len(plan.arms)} arms on {len(plan.data)} data sets with {len(seeds)} seeds: {len(plan.trials)} trials",
        f"arms: {', '.join(arm.name for arm in plan.arms)}",
        *(f"data set {name} is missing: {error}" for name, error in missing.items()),
    ]
    return "\n".join(lines)


def _describe_member(ready: Prepared, member: Member, start: Architecture) -> list[str]:
    plan = ready.plan
    moves = legal_moves(
        start,
        kinds=plan.moves(member),
        units=member.growth.units,
        palette=plan.network.palette,
        max_flops=plan.budget.max_flops_per_example,
        max_params=plan.budget.max_params,
    )
    price = ready.facts.price(member.growth, plan)
    probe = examples_of(member.probe.examples, ready.facts.train_rows)
    lines = [
        "",
        f"member {member.name}: strategy {kind_of(member.strategy)}, initializer {kind_of(member.initializer)}, "
        f"price {price:.3g} per added FLOP",
        f"  a round probes at most {member.growth.candidates} candidates beside the control, {probe} examples each",
        f"  {len(moves)} legal first moves:",
    ]
    for move in moves:
        added = forward_flops(move.apply(start)) - forward_flops(start)
        lines.append(f"    {move.kind} {move.site} {move.units} units: {added:+d} FLOPs, must gain {price * added:.3g}")
    if not moves:
        lines.append("    none: the budget leaves no room to grow")
    return lines


def _estimates(ready: Prepared, start: Architecture) -> list[str]:
    plan, facts, data = ready.plan, ready.facts, ready.dataset
    seconds = 0.0
    examples = 0.0
    for member in plan.members:
        forks = member.growth.candidates + 1
        alone = plan.campaign.rounds * examples_of(member.training.examples_per_round, facts.train_rows)
        alone += examples_of(member.training.final_examples, facts.train_rows)
        probed = plan.campaign.rounds * examples_of(member.probe.examples, facts.train_rows)
        examples += alone + forks * probed
        for lesson, networks in ((alone, 1), (probed, forks)):
            seconds += lesson / member.training.batch_size * (SECONDS_PER_STEP + networks * SECONDS_PER_NETWORK)
        seconds += plan.campaign.rounds * SECONDS_PER_GROWTH
    workers = 1
    if plan.pool.kind == "ray":
        workers = min(plan.pool.actors_for(len(plan.members)), os.cpu_count() or 1)
    seconds = STARTUP_SECONDS + seconds / workers
    split_bytes = sum(
        getattr(data, name).x.nbytes + getattr(data, name).y.nbytes
        for name in ("train", "search", "validation", "test")
    )
    final_params = plan.budget.max_params or 8 * facts.flops_scale(plan) // 2
    checkpoint = 12 * final_params + 20_000
    kept = plan.campaign.rounds * len(plan.members) + 2 * len(plan.members)
    if plan.checkpoints.keep == "all":
        kept *= 1 + max(member.growth.candidates for member in plan.members)
    flops = examples * training_flops(start)
    return [
        "estimates, when every round is used:",
        f"  time: about {seconds:.0f} s on {workers} cores",
        f"  training: {examples:.3g} examples, from {flops:.2g} FLOPs on (networks grow)",
        f"  memory: about {185 + 2 * split_bytes / 1e6:.0f} MB an actor, {split_bytes / 1e6:.1f} MB of data shared",
        f"  disk: at most {kept * checkpoint / 1e6:.0f} MB of checkpoints",
    ]


def _shaped(shape: tuple[int, ...]) -> str:
    """``, images of 1 x 16 x 16``, or nothing for plain vectors."""
    return f", {'images' if len(shape) == 3 else 'signals'} of {' x '.join(map(str, shape))}" if shape else ""


def _listed(names: tuple[str, ...], most: int = 12) -> str:
    """Names in a row; the values of one array, ``image[0]`` and so on, by their first and last."""
    shown: list[str] = []
    for _, run in groupby(names, key=lambda name: name.rpartition("[")[0] or name):
        values = list(run)
        shown += [f"{values[0]} to {values[-1]}"] if len(values) > 2 else values
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")
