"""Who may import whom, read from the source; and that a campaign runs where neither Ray nor MLflow can be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import raygrow

ROOT = Path(raygrow.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

CORE = ("errors", "architecture", "nn", "growth", "training")
"""Each imports those before it."""

MAY: dict[str, set[str]] = {layer: set(CORE[:i]) for i, layer in enumerate(CORE)}
MAY["data"] = {"errors"}
MAY["comparison"] = {"errors", "data", "population"}
MAY["strategies"] = {"errors", "architecture"}
MAY["population"] = {*CORE, "data", "strategies"}
MAY["policy"] = {*MAY["population"], "population"}
MAY["baselines"] = {*MAY["population"], "population"}
# The rim: single modules with a place of their own.
MAY["predictor"] = {"errors", "architecture", "nn", "data"}
MAY["predict"] = {"errors", "data", "population", "predictor"}
MAY["progress"] = {"errors", "population"}
MAY["document"] = {"errors", "population"}
MAY["config"] = {*MAY["policy"], "document", "baselines"}
MAY["testing"] = {*MAY["policy"], "baselines"}
MAY["comparison_config"] = {*MAY["config"], "config", "comparison"}
MAY["adapters"] = {*MAY["policy"], "policy", "baselines", "predictor", "predict", "comparison", "process"}
MAY["report"] = {*MAY["policy"], "policy", "comparison"}
MAY["process"] = {"errors", "raygrow"}  # its version
MAY["result"] = {"population", "predictor"}
MAY["app"] = {*MAY["adapters"], "adapters", "report", "config", "process", "progress", "result"}
MAY["trial"] = {*MAY["app"], "app", "comparison"}
MAY["comparing"] = {*MAY["trial"], "trial", "comparison_config", "document"}
MAY["validate"] = {*MAY["comparing"], "comparing"}
MAY["cli"] = {*MAY["validate"], *MAY["comparing"], "validate", "comparing", "raygrow"}
MAY["raygrow"] = {"app", "result"}

THIRD: dict[str, str | tuple[str, ...]] = {
    "ray": "adapters/ray_",
    "mlflow": "adapters/mlflow_",
    "click": "cli.py",
    "pydantic": "config.py",
    "yaml": ("config.py", "document.py"),
    "PIL": "data/images.py",
    "torchvision": "data/images.py",
    "moocore": "comparison/front.py",
}
"""Where each may be imported: the beginning of the path."""

NO_TORCH = ("errors.py", "architecture/", "strategies/", "data/", "comparison/", "report/", "config.py", "document.py",
            "cli.py", "progress.py")  # fmt: skip
PURE = ("coordinator.py", "tasks.py", "plan.py", "pool_plan.py", "ledger.py", "lineage.py", "campaign.py", "folder.py",
        "standing.py", "selection/")  # fmt: skip
"""Of the population: the parts that never see a tensor."""


def path_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def layer_of(file: Path) -> str:
    first = path_of(file).split("/")[0].removesuffix(".py")
    return "raygrow" if first == "__init__" else first


@cache
def imported(file: Path) -> tuple[str, ...]:
    """Full names of every module imported anywhere in a file, inside functions and for type checkers too."""
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path_of(file)}:{node.lineno}: imports are written in full"
            assert node.module is not None
            found.append(node.module)
            if node.module == "raygrow":
                found += [
                    f"raygrow.{a.name}"
                    for a in node.names
                    if (ROOT / a.name).is_dir() or (ROOT / f"{a.name}.py").exists()
                ]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found += [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return tuple(found)


def layers_of(file: Path) -> Iterator[str]:
    for name in imported(file):
        parts = name.split(".")
        if parts[0] == "raygrow":
            yield parts[1] if len(parts) > 1 else "raygrow"


def outside(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(file)} - {"raygrow"}


def test_every_file_belongs_to_a_layer() -> None:
    assert {layer_of(file) for file in FILES} <= set(MAY)
    assert set(CORE) | {"data", "strategies", "population", "app", "cli"} <= {layer_of(file) for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=path_of)
def test_imports_run_one_way(file: Path) -> None:
    layer = layer_of(file)
    forbidden = set(layers_of(file)) - MAY[layer] - {layer}
    assert not forbidden, f"{path_of(file)} may not import {sorted(forbidden)}"


def test_the_order_itself_has_no_cycle() -> None:
    """But for the package's lazy names, which come last and are imported by none but for the version."""
    may = {layer: below - {"raygrow"} for layer, below in MAY.items()}
    placed: set[str] = set()
    while ready := {layer for layer, below in may.items() if layer not in placed and below <= placed}:
        placed |= ready
    assert placed == set(may)


@pytest.mark.parametrize("package", THIRD)
def test_the_edges_alone_import_what_lies_outside(package: str) -> None:
    users = [path_of(file) for file in FILES if package in outside(file)]
    assert users
    assert all(user.startswith(THIRD[package]) for user in users), users


def test_matters_of_the_mind_know_no_torch() -> None:
    users = [path_of(file) for file in FILES if "torch" in outside(file)]
    assert users
    assert not [user for user in users if user.startswith(NO_TORCH)]
    assert not [user for user in users if user.startswith(tuple(f"population/{part}" for part in PURE))]


def loaded(statement: str, heavy: set[str]) -> set[str]:
    """Which of the heavy modules a process holds after the statement, also through others: no file's source shows that."""
    script = f"import sys\n{statement}\nprint(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_light_layers_loads_no_torch() -> None:
    light = (
        "import raygrow, raygrow.errors, raygrow.architecture, raygrow.strategies, raygrow.data, "
        "raygrow.population.selection, raygrow.population.tasks, raygrow.population.ledger, raygrow.population.pool_plan\n"
        "raygrow.__version__"
    )
    assert not loaded(light, {"torch", "ray", "mlflow", "pydantic", "yaml", "click"})


def test_an_actor_s_class_loads_no_torch_and_its_worker_nothing_but_torch() -> None:
    """Every actor pays for what it imports before the first round, and three share two cores."""
    heavy = {"torch", "pydantic", "pyarrow", "pandas", "scipy", "sklearn", "mlflow", "yaml"}
    assert not loaded("import raygrow.adapters.ray_actor", heavy)
    assert loaded("import raygrow.population.worker", heavy) == {"torch"}


def test_strategies_see_no_model_and_initializers_no_strategy() -> None:
    for file in FILES:
        if path_of(file).startswith("strategies/"):
            assert outside(file) <= {"__future__", "math", "abc", "collections", "dataclasses", "typing", "numpy"}
        if path_of(file).startswith("growth/"):
            assert "strategies" not in set(layers_of(file))


@pytest.mark.parametrize("file", FILES, ids=path_of)
def test_randomness_is_passed_and_never_global(file: Path) -> None:
    """No draw from a generator that the whole process shares."""
    generators = {"Generator", "default_rng", "SeedSequence", "PCG64", "BitGenerator"}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            parts = name.split(".")
            assert not (
                parts[:2] in (["np", "random"], ["numpy", "random"]) and len(parts) == 3 and parts[2] not in generators
            ), name
            assert name not in ("torch.manual_seed", "torch.cuda.manual_seed", "torch.random.manual_seed"), name
    assert not {"random"} & outside(file)


WITHOUT = """
import sys
from pathlib import Path
sys.modules["ray"] = sys.modules["mlflow"] = None
from raygrow.data import prepare
from raygrow.data.teacher import Teacher
from raygrow.growth.initializers import Tiny
from raygrow.population.campaign import run_campaign
from raygrow.population.coordinator import Coordinator
from raygrow.population.folder import CampaignFolder
from raygrow.population.plan import Campaign, Facts, Growth, Member, Plan, Probe, Training
from raygrow.population.selection import Independent
from raygrow.population.serial_pool import SerialPool
from raygrow.population.worker import Worker
from raygrow.strategies import Mdl, RandomStrategy

data = Teacher(inputs=6, units=6, classes=3, rows=300)
brief = {
    "initializer": Tiny(),
    "training": Training(examples_per_round=128, final_examples=128),
    "growth": Growth(units=(2, 4), price=0.0),
    "probe": Probe(examples=128, blocks=2),
}
members = (Member(name="mdl", strategy=Mdl(), **brief), Member(name="random", strategy=RandomStrategy(), **brief))
plan = Plan(data=data, members=members, campaign=Campaign(rounds=2), selection=Independent())
dataset = prepare(data, 0)
facts = Facts(dataset.task, dataset.inputs, dataset.outputs, len(dataset.train), dataset.constant_loss())
folder = CampaignFolder(Path(sys.argv[1]))
coordinator = Coordinator(plan, facts)
run_campaign(coordinator, folder.ledger, folder.store, SerialPool(Worker(plan, facts, dataset, folder.store)))
assert coordinator.done
for head in coordinator.heads.values():
    assert head.test is not None and head.probed > 0
    assert folder.store.load(head.network["checkpoint"])
assert Coordinator.replay(plan, facts, folder.ledger.read()) == coordinator
print("done", coordinator.best in {"mdl", "random"})
"""


def test_a_campaign_runs_without_ray_and_mlflow(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "done True\n", done.stderr
