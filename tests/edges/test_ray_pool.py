"""The Ray pool gives what the serial pool gives, bit for bit, with any number of actors and through their deaths."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import raygrow
from raygrow.adapters.ray_pool import RayPool
from raygrow.app import Prepared, prepare_campaign
from raygrow.config import load_plan
from raygrow.errors import CampaignFailed, Refused, WorkerLost
from raygrow.population.checkpoints import CheckpointStore
from raygrow.population.serial_pool import SerialPool
from raygrow.population.tasks import Task
from raygrow.population.worker import Worker
from raygrow.testing import run_all
from tests.end_to_end.campaigns import SMALL, events, run_to_end, run_with, same_outcome

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One private cluster for all tests here: starting Ray costs more than any of them."""
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, namespace="raygrow")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> raygrow.Result:
    return raygrow.run(SMALL, out=tmp_path_factory.mktemp("serial") / "run", quiet=True)


def _ready(**overrides: Any) -> Prepared:
    return prepare_campaign(load_plan(SMALL, overrides))


def _tasks(ready: Prepared, store: CheckpointStore) -> list[Task]:
    """The first round of every member."""
    worker = Worker(ready.plan, ready.facts, ready.dataset, store)
    names = [member.name for member in ready.plan.members]
    starts = worker.run([Task("start", name, 0) for name in names])
    return [Task("round", name, 1, start["head"]["checkpoint"]) for name, start in zip(names, starts, strict=True)]


@pytest.mark.parametrize("actors", [1, 2, 3])
def test_any_number_of_actors_gives_the_serial_campaign(actors: int, serial: raygrow.Result, tmp_path: Path) -> None:
    result = raygrow.run(SMALL, {"pool.kind": "ray", "pool.actors": actors}, out=tmp_path / "run", quiet=True)
    same_outcome(serial.folder, result.folder)


def test_reports_equal_those_of_the_serial_pool(tmp_path: Path) -> None:
    ready, store = _ready(), CheckpointStore(tmp_path / "checkpoints")
    tasks = _tasks(ready, store)
    here = SerialPool(Worker(ready.plan, ready.facts, ready.dataset, store))
    there = RayPool(ready.plan, ready.facts, ready.dataset, store.root)
    try:
        assert run_all(here, tasks) == run_all(there, list(reversed(tasks)))
    finally:
        there.close()


def test_a_killed_actor_is_replaced_and_its_round_run_again(serial: raygrow.Result, tmp_path: Path) -> None:
    """The only actor is killed from outside as soon as it has begun a round; the campaign ends the same."""
    from raygrow import app

    killed: list[int] = []

    class Killing(RayPool):
        def submit(self, tasks: Sequence[Task]) -> None:
            super().submit(tasks)
            if (tasks[0].phase, tasks[0].round) == ("round", 2) and not killed:
                killed.extend(self.pids())
                os.kill(killed[0], signal.SIGKILL)

    patched = pytest.MonkeyPatch()
    patched.setattr("raygrow.adapters.ray_pool.RayPool", Killing)
    try:
        result = app.run(SMALL, {"pool.kind": "ray", "pool.actors": 1}, out=tmp_path / "run", quiet=True)
    finally:
        patched.undo()
    assert killed
    same_outcome(serial.folder, result.folder)


DEADLY = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from raygrow.strategies import AbstractStrategy, Mdl

base = Mdl()


@dataclass(frozen=True)
class Strategy(AbstractStrategy):
    marker: str

    def initial_state(self, constant_loss):
        return base.initial_state(constant_loss)

    def shortlist(self, *args):
        return base.shortlist(*args)

    def judge(self, evidence, situation, state):
        # The verdict is asked for when the forks have trained, before anything of the round is written.
        if situation.round == 2 and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return base.judge(evidence, situation, state)

    def learn(self, *args):
        return base.learn(*args)
"""


def test_death_in_the_middle_of_a_probe_is_survived(tmp_path: Path) -> None:
    (tmp_path / "deadly_strategy.py").write_text(DEADLY)
    marker = tmp_path / "died"
    members = [{"name": "mdl", "strategy": {"kind": "deadly_strategy:Strategy", "marker": str(marker)}}]
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "members": [*members, *SMALL["members"][1:]]}))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run_to_end("run", config, "--out", tmp_path / "run", "--pool", "ray", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert marker.exists()
    assert any(event["type"] == "retried" for event in events(tmp_path / "run"))
    alive = run_to_end("run", config, "--out", tmp_path / "alive", PYTHONPATH=path)
    assert alive.returncode == 0, alive.stderr
    assert not any(event["type"] == "retried" for event in events(tmp_path / "alive"))
    same_outcome(tmp_path / "alive", tmp_path / "run")


SIGNALLING = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from raygrow.strategies import AbstractStrategy, Mdl

base = Mdl()


@dataclass(frozen=True)
class Strategy(AbstractStrategy):
    driver: str

    def initial_state(self, constant_loss):
        return base.initial_state(constant_loss)

    def shortlist(self, proposals, situation, *args):
        # Its driver waits for this.
        if situation.round == 2:
            os.kill(int(Path(self.driver).read_text()), signal.SIGTERM)
        return base.shortlist(proposals, situation, *args)

    def judge(self, *args):
        return base.judge(*args)

    def learn(self, *args):
        return base.learn(*args)
"""


def test_told_to_stop_while_ray_waits_it_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "signalling_strategy.py").write_text(SIGNALLING)
    driver = tmp_path / "driver"
    members = [{"name": "mdl", "strategy": {"kind": "signalling_strategy:Strategy", "driver": str(driver)}}]
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "members": members, "pool": {"kind": "ray"}}))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    patch = f"sys.path.insert(0, {str(tmp_path)!r}); open({str(driver)!r}, 'w').write(str(os.getpid()))"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", path)
        stopped = run_with(patch, "run", config, "--out", tmp_path / "run")
    assert stopped.returncode == 130, stopped.stderr
    assert [event["type"] for event in events(tmp_path / "run")][-1] == "interrupted"


def test_an_error_of_the_task_is_not_retried(tmp_path: Path) -> None:
    ready, store = _ready(), CheckpointStore(tmp_path / "checkpoints")
    pool = RayPool(ready.plan, ready.facts, ready.dataset, store.root)
    try:
        pool.submit([Task("round", "mdl", 1, "0" * 32)])
        with pytest.raises(CampaignFailed, match=r"task mdl/0001/round failed: CheckpointError: checkpoint 0+"):
            pool.wait()
    finally:
        pool.close()


def test_a_dead_actor_is_told_as_a_lost_worker(tmp_path: Path) -> None:
    ready, store = _ready(**{"pool.actors": 1}), CheckpointStore(tmp_path / "checkpoints")
    tasks = _tasks(ready, store)
    pool = RayPool(ready.plan, ready.facts, ready.dataset, store.root)
    try:
        os.kill(pool.pids()[0], signal.SIGKILL)
        pool.submit(tasks)
        with pytest.raises(WorkerLost, match=r"running tasks mdl/0001/round, .*, periodic/0001/round died") as lost:
            pool.wait()
        assert lost.value.tasks == tuple(tasks)
        again = run_all(pool, lost.value.tasks)
        assert again == run_all(SerialPool(Worker(ready.plan, ready.facts, ready.dataset, store)), tasks)
    finally:
        pool.close()


def test_actors_share_the_tasks_evenly_and_in_order(tmp_path: Path) -> None:
    """Seen from what each of two dead actors held."""
    ready, store = _ready(**{"pool.actors": 2}), CheckpointStore(tmp_path / "checkpoints")
    tasks = [Task("start", member.name, 0) for member in ready.plan.members]
    pool = RayPool(ready.plan, ready.facts, ready.dataset, store.root)
    try:
        for pid in pool.pids():
            os.kill(pid, signal.SIGKILL)
        pool.submit(tasks)
        held = []
        for _ in range(2):
            with pytest.raises(WorkerLost) as lost:
                pool.wait()
            held.append(lost.value.tasks)
        assert sorted(held, key=len, reverse=True) == [tuple(tasks[:2]), tuple(tasks[2:])]
        assert run_all(pool, tasks)
    finally:
        pool.close()


def test_an_actor_that_cannot_be_placed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raygrow.adapters.ray_pool.POLL", 0.05)
    ready = _ready(**{"pool.cpus_per_actor": 64, "pool.ready_seconds": 1})
    with pytest.raises(
        Refused, match=r"3 actors of 64.0 CPUs and 0.0 GPUs do not fit the cluster of 3 CPUs.* placed in 1 s"
    ):
        RayPool(ready.plan, ready.facts, ready.dataset, tmp_path / "checkpoints")


def test_an_unreachable_address_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "pool": {"kind": "ray"}}))
    out = tmp_path / "run"
    done = run_to_end(
        "run", config, "--out", out, "--address", "127.0.0.1:1",
        RAY_gcs_rpc_server_connect_timeout_s="1", RAY_NUM_REDIS_GET_RETRIES="1",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "cannot use the Ray cluster at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
