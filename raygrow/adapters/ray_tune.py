"""Trials of a comparison on Ray Tune: each in a placement group of its own, so many at once as fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raygrow.adapters.ray_start import last_line
from raygrow.comparison.placement import Bundle
from raygrow.comparison.plan import Stop
from raygrow.comparison.table import STOPPED, Outcome

WORST = 1e30
"""Stands for a loss that is not finite: it comes last, and in order."""
RETRIES = 2
"""Times that a trial whose process or node is lost is begun again; it goes on from its folder."""
THREAD_SECONDS = "60"
"""Seconds a stopped trial has to write what it leaves before its process is used for another."""

Report = Callable[[int, float | None], None]
"""Told the round and the validation loss after it."""


@dataclass(frozen=True)
class Job:
    """What a process of the cluster is given: one trial, or several that it runs one after another.

    Attributes:
        group: jobs of the same group are measured against one another where hopeless ones are stopped; they have one trial.
        bundles: of its placement group; the first is the process's own, actors that it creates get the others.
        contents: handed to the work, by id of the trial.
    """

    group: str
    bundles: Sequence[Bundle]
    contents: Mapping[str, Any]


Work = Callable[[Any, Report], Outcome]
"""What a trial does, in a process of the cluster. It raises nothing: what went wrong is its outcome."""


class _Here:
    """What is told in this process: Tune saves its callbacks, and must not try to save this."""

    def __init__(self, began: Callable[[str], None], ended: Callable[[str, Outcome], None]) -> None:
        self.began, self.ended = began, ended

    def __reduce__(self) -> tuple[Any, ...]:
        return _Here, (None, None)


def nodes() -> list[Bundle]:
    """Resources of every living node of the cluster this process is connected to."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def run_trials(
    jobs: Sequence[Job],
    work: Work,
    storage: Path,
    concurrent: int | None,
    stop: Stop | None,
    rounds: int,
    began: Callable[[str], None],
    ended: Callable[[str, Outcome], None],
) -> None:
    """Run every job to its outcome. Ray must run already; what does not fit it waits for ever.

    Args:
        storage: folder for Tune's own files, which every node must reach.
        concurrent: most at once; None: as many as fit.
        stop: how hopeless ones end; None: none does, and nothing is reported on the way.
        rounds: most rounds of any trial.
        began, ended: told by id of the trial, in this process; a job whose process was lost tells again what it had ended.
    """
    # Read by Tune when it is imported, and by the processes of the trials: no logs for people, no handler of its own beside
    # ours, the working folder of the driver, in which a user's module may lie.
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",
        TUNE_FUNCTION_THREAD_TIMEOUT_S=THREAD_SECONDS,
        RAY_AIR_NEW_OUTPUT="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",
    )
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    here = _Here(began, ended)

    class ByGroup(FIFOScheduler):  # type: ignore[misc]
        """Successive halving among the trials of each group: losses of different data sets have no common order."""

        def __init__(self, rule: Stop) -> None:
            super().__init__()
            self._rule = rule
            self._halving: dict[str, Any] = {}

        def _of(self, trial: Any) -> Any:
            group = jobs[trial.config["job"]].group
            if group not in self._halving:
                self._halving[group] = ASHAScheduler(
                    time_attr="round",
                    metric="loss",
                    mode="min",
                    # It stops what reaches this, which none does: campaigns end by themselves.
                    max_t=rounds + 1,
                    grace_period=min(self._rule.grace_rounds, rounds + 1),
                    reduction_factor=self._rule.reduction,
                )
            return self._halving[group]

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            self._of(trial).on_trial_add(tune_controller, trial)

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            decision: str = self._of(trial).on_trial_result(tune_controller, trial, result)
            return decision

    class Listener(tune.Callback):  # type: ignore[misc]
        """Every trial of a job reports its outcome; one that reported none was stopped, or its process was lost."""

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            here.began(_left(trial)[0])

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "status" in result:
                here.ended(result["trial"], Outcome(result["status"], result["reason"]))
                for next_ in _left(trial, result)[:1]:
                    here.began(next_)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            round_ = (trial.last_result or {}).get("round")
            for left in _left(trial):
                here.ended(left, Outcome(STOPPED, f"hopeless after round {round_}: others of its repetition led"))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            error = trial.get_error()
            why = "no reason was given" if error is None else last_line(error)
            for left in _left(trial):
                here.ended(left, Outcome("failed", f"its process was lost: {why}"))

    def _left(trial: Any, result: Mapping[str, Any] | None = None) -> list[str]:
        """Trials of a job behind the last that reported its outcome."""
        names = list(jobs[trial.config["job"]].contents)
        last = (result or trial.last_result or {}).get("trial")
        return names[names.index(last) + 1 :] if last in names else names

    def trial(config: dict[str, Any], jobs: Sequence[Job]) -> None:
        def report(round_: int, loss: float | None) -> None:
            if stop is not None:
                tune.report({"round": round_, "loss": WORST if loss is None else loss})

        for name, content in jobs[config["job"]].contents.items():
            outcome = work(content, report)
            tune.report({"trial": name, "status": outcome.status, "reason": outcome.reason})

    def resources(config: dict[str, Any]) -> Any:
        return tune.PlacementGroupFactory([dict(bundle) for bundle in jobs[config["job"]].bundles], strategy="PACK")

    tune.Tuner(
        tune.with_resources(tune.with_parameters(trial, jobs=list(jobs)), resources),
        param_space={"job": tune.grid_search(list(range(len(jobs))))},
        tune_config=tune.TuneConfig(
            scheduler=FIFOScheduler() if stop is None else ByGroup(stop),
            max_concurrent_trials=concurrent,
            # A process that has imported torch serves the next trial too.
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage.resolve()),
            verbose=0,
            callbacks=[Listener()],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
        ),
    ).fit()
