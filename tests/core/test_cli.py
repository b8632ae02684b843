"""The command line: its frozen surface, what it imports, what it refuses and with which exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner, Result

import raygrow
import raygrow.app
from raygrow.cli import main
from raygrow.comparison_config import is_comparison, load_comparison
from raygrow.config import FAMILIES, fields_of, kind_name, load_plan
from raygrow.document import read_document
from raygrow.errors import CheckpointError
from raygrow.strategies import AbstractStrategy

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
COMPARISONS = [path for path in CONFIGS if is_comparison(read_document(path))]
CAMPAIGNS = [path for path in CONFIGS if path not in COMPARISONS]
DIGITS = str(next(path for path in CONFIGS if path.name == "digits.yaml"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def contents() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


# The surface

SURFACE = {
    "run": "CONFIG --set --out --pool --address --log-format",
    "resume": "DIR --set --pool --address --log-format",
    "validate": "CONFIG --set",
    "compare": "CONFIG --set --out --address --log-format",
    "lineage": "DIR --member --format",
    "report": "DIR",
    "predict": "DIR --data --output --member --arch --checkpoint",
    "strategies": "",
}


def test_commands_and_their_options_are_frozen() -> None:
    """Others rely on these names (shared contract): adding is free, a change here is a breaking one."""

    def words(command: click.Command) -> str:
        return " ".join(p.opts[0] if isinstance(p, click.Option) else str(p.metavar) for p in command.params)

    assert {name: words(command) for name, command in main.commands.items()} == SURFACE


IMPORTS = """
import sys
from click.testing import CliRunner
from raygrow.cli import main
for words in (["--help"], ["-h"], ["--version"], ["nonsense"], *([name, "--help"] for name in main.commands)):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == (2 if words == ["nonsense"] else 0), (words, result.output)
    heavy = {"torch", "ray", "mlflow", "sklearn", "pyarrow", "pydantic"} & set(sys.modules)
    assert not heavy, (words, heavy)
print("light")
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("light\n", 0), done.stderr


def test_a_campaign_imports_no_statistics_library() -> None:
    """Its report needs one figure of it, and its import alone takes longer than a small campaign."""
    heavy = {"scipy", "sklearn", "pandas", "matplotlib", "mlflow"}
    words = f"import sys, raygrow.app, raygrow.report; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr


IMPORTING = """
import gc
from raygrow.process import imports
try:
    with imports():
        inside = gc.isenabled()
        raise ImportError
except ImportError:
    print(inside, gc.isenabled(), gc.get_freeze_count() > 1000)
"""


def test_no_garbage_is_looked_for_among_imports() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("False True True\n", 0), done.stderr


@pytest.mark.parametrize("command", SURFACE)
def test_every_command_explains_itself_and_its_options(command: str) -> None:
    for option in ("--help", "-h"):
        result = call(command, option)
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: main {command} ")
        assert all(word in result.stdout for word in SURFACE[command].split())
    for parameter in main.commands[command].params:
        if isinstance(parameter, click.Option) and parameter.name != "form":
            assert parameter.help, parameter.name
    assert main.commands[command].get_short_help_str(200).endswith(".")


def test_help_lists_every_command_and_the_version_is_the_package_s() -> None:
    listed = re.findall(r"^  ([a-z]+)  +\S", call("--help").stdout.split("Commands:")[1], re.MULTILINE)
    assert listed == list(SURFACE)
    assert call("--version").stdout == f"raygrow, version {raygrow.__version__}\n"


@pytest.mark.parametrize("word", ["runs", "export", "compares", "policy", "Run", ""])
def test_an_unknown_command_is_refused_with_the_list(word: str) -> None:
    result = call(word)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"no such command {word!r}; commands: {', '.join(SURFACE)}" in result.stderr


# Refusals


def refused(*words: str) -> str:
    """The one line of a refusal; nothing was created and nothing printed."""
    before = contents()
    result = call(*words)
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("raygrow: ")
    assert "Traceback" not in result.stderr
    assert contents() == before
    return result.stderr


PARQUET = "data={kind: parquet, path: nowhere.parquet, label: y}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["none.yaml"], "none.yaml: cannot be read"),
        ([DIGITS, "--set", "campaign.sed=3"], "unknown key `campaign.sed` (did you mean `seed`?)"),
        ([DIGITS, "--set", "campaign.seed=-3"], "`seed >= 0` must hold, but got -3"),
        ([DIGITS, "--set", "campaign.seed"], "--set takes KEY.PATH=VALUE, but got 'campaign.seed'"),
        ([DIGITS, "--set", "members.7.name=x"], "`members.7` must be an index from 0 to 2"),
        ([DIGITS, "--set", "data.kind=mnist"], "`data.kind`: unknown kind 'mnist'"),
        ([DIGITS, "--set", "data.kind=[a]"], "`data.kind`"),
        ([DIGITS, "--set", "campaign.name=2024-02-30"], "--set campaign.name: '2024-02-30'"),
        ([DIGITS, "--set", PARQUET], "nowhere.parquet"),
        ([DIGITS, "--set", "data.fractions=[0.9998, 0.0001, 0.0001]"], "at least"),
        (
            [DIGITS, "--set", "budget.max_flops_per_example=1279"],
            "`budget.max_flops_per_example`: the start (64 inputs -> 10",
        ),
        ([DIGITS, "--set", "budget.max_params=649"], "needs 650, above the 649 allowed"),
    ],
    ids=lambda value: value[-1].rsplit("/", 1)[-1] if isinstance(value, list) else "",
)
def test_run_and_validate_refuse_what_cannot_work_before_any_work(words: list[str], expected: str) -> None:
    assert expected in refused("validate", *words)
    assert expected in refused("run", *words, "--pool", "serial", "--out", "new/folder")


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [
        ("max_flops_per_example=1280", []),
        ("max_params=650", []),
        # A node of u units adds 2 (64 + 10) u FLOPs and 65 u + 10 u parameters.
        ("max_flops_per_example=1872", [1, 2, 4]),
        ("max_flops_per_example=1871", [1, 2]),
        ("max_params=950", [1, 2, 4]),
        ("max_params=949", [1, 2]),
    ],
)
def test_first_moves_stay_within_the_budget_that_the_start_just_meets(limit: str, sizes: list[int]) -> None:
    """64 inputs to 10 outputs: 1280 FLOPs and 650 parameters."""
    free = ["--set", "budget.max_flops_per_example=null"] if "params" in limit else []
    result = call("validate", DIGITS, *free, "--set", f"budget.{limit}")
    assert result.exit_code == 0
    found = re.findall(r"^    add_node input>output (\d+) units", result.stdout, re.MULTILINE)
    assert [int(size) for size in found] == sizes * 3
    assert result.stdout.count("none: the budget leaves no room to grow") == (0 if sizes else 3)


def test_a_folder_that_holds_something_is_refused() -> None:
    Path("used").mkdir()
    Path("used/notes.txt").write_text("mine")
    assert "--out used: the folder must be empty or new" in refused("run", DIGITS, "--pool", "serial", "--out", "used")
    Path("used/config.yaml").write_text("x")
    assert "raygrow resume" in refused("run", DIGITS, "--pool", "serial", "--out", "used")
    assert Path("used/notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused() -> None:
    Path("file").write_text("mine")
    for out in ("file", "file/below", "file/far/below"):
        assert f"--out {out}: " in refused("run", DIGITS, "--pool", "serial", "--out", out)
    if os.geteuid() != 0:  # root may write anywhere
        Path("shut").mkdir(mode=0o500)
        assert "shut" in refused("run", DIGITS, "--pool", "serial", "--out", "shut/below")


def test_an_address_without_ray_is_refused() -> None:
    message = refused("run", DIGITS, "--pool", "serial", "--address", "auto", "--out", "new")
    assert "--address auto" in message


@pytest.mark.parametrize(
    "words",
    [["resume"], ["lineage"], ["lineage", "--member", "x"], ["report"], ["predict", "--data", "a", "--output", "b"]],
    ids=" ".join,
)
def test_commands_on_a_folder_without_a_campaign_are_refused(words: Sequence[str]) -> None:
    Path("empty").mkdir()
    for folder in ("empty", "absent"):
        assert f"{folder}: no campaign here" in refused(words[0], folder, *words[1:])


def test_resume_takes_no_other_key_than_the_data_s_path() -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text("data: {kind: digits}")
    Path("run/events.jsonl").write_text('{"n":0,"type":"nonsense"}\n')
    assert "--set campaign.seed: a resumed campaign takes `data.path` alone" in refused(
        "resume", "run", "--set", "campaign.seed=3"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", DIGITS, "--pool", "threads"],
        ["run", DIGITS, "--nope"],
        ["validate", DIGITS, "x"],
        ["predict", "a"],
    ],
    ids=["no CONFIG", "pool", "option", "surplus", "missing option"],
)
def test_wrong_arguments_are_refused(words: Sequence[str]) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr
    assert contents() == []


def test_a_refusal_in_a_process_of_its_own_is_one_line_too() -> None:
    command = [sys.executable, "-m", "raygrow.cli", "run", DIGITS, "--set", "growth.price=cheap"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("raygrow: `growth.price")
    assert "cheap" in done.stderr
    assert contents() == []


# strategies and validate


def test_strategies_lists_every_registry_member_with_its_parameters() -> None:
    result = call("strategies")
    assert result.exit_code == 0
    sections = re.split(r"^(\w+):$", result.stdout, flags=re.MULTILINE)[1:]
    listed = dict(zip(sections[::2], sections[1::2], strict=True))
    assert list(listed) == list(FAMILIES)
    for family, (_, members) in FAMILIES.items():
        assert re.findall(r"^  (\w+): \S", listed[family], re.MULTILINE) == [kind_name(cls) for cls in members]
        parameters = [name for cls in members for name, _, _ in fields_of(cls)]
        assert re.findall(r"^      (\w+) = ", listed[family], re.MULTILINE) == parameters
        assert not re.findall(r"^      \w+ = \S+  *$", listed[family], re.MULTILINE), (
            "a parameter without a description"
        )


@pytest.mark.parametrize("path", CAMPAIGNS, ids=lambda path: path.name)
def test_validate_prints_what_a_configuration_would_do_and_creates_nothing(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own: dict[str, str] = {}
    if path.name == "tabular.yaml":
        # It names the reader's own file.
        own["data.path"] = str(tmp_path_factory.mktemp("own") / "mine.csv")
        own["data.kind"] = "csv"
        Path(own["data.path"]).write_text("a,b,label\n" + "".join(f"{i},{i * i % 7},{i % 2}\n" for i in range(40)))
    result = call("validate", str(path), *(word for key, value in own.items() for word in ("--set", f"{key}={value}")))
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert contents() == []
    head, text, *_ = re.split(r"^# resolved configuration\n|\n\n", result.stdout, flags=re.MULTILINE)
    plan = load_plan(path, own)
    assert head == ""
    assert load_plan(yaml.safe_load(text)) == plan
    found = re.search(
        r"^start: (\d+) -> linear -> (\d+) \((\d+) FLOPs per example, (\d+) parameters\)", result.stdout, re.MULTILINE
    )
    assert found is not None
    inputs, outputs, flops, parameters = map(int, found.groups())
    assert (flops, parameters) == (2 * inputs * outputs, inputs * outputs + outputs)
    limit = plan.budget.max_flops_per_example or 10**12
    for member in plan.members:
        block = result.stdout.split(f"\nmember {member.name}: ")[1].split("\n\n")[0]
        # From a linear start the one legal kind of move is a node between input and output.
        sizes = [u for u in member.growth.units if flops + 2 * u * (inputs + outputs) <= limit]
        expected = [f"add_node input>output {u} units: +{2 * u * (inputs + outputs)} FLOPs" for u in sizes]
        assert re.findall(r"^    (.*?), must gain", block, re.MULTILINE) == expected
        assert f"  {len(sizes)} legal first moves:" in block


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.name)
def test_validate_checks_a_comparison_and_its_data(path: Path) -> None:
    result = call("validate", str(path))
    assert (result.exit_code, result.stderr) == (0, "")
    assert contents() == []
    plan = load_comparison(path)
    _, text, *_ = re.split(r"^# resolved configuration\n|\n\n", result.stdout, flags=re.MULTILINE)
    assert load_comparison(yaml.safe_load(text)) == plan
    assert f": {len(plan.arms) * len(plan.data) * len(plan.comparison.seeds)} trials\n" in result.stdout
    assert "missing" not in result.stdout


# Exit codes of what began


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trouble(AbstractStrategy):
    """A strategy that stops the campaign from inside, until it is told not to."""

    def shortlist(self, proposals: Any, situation: Any, state: Any, rng: Any) -> tuple[Any, ...]:
        trouble.cause()
        return ()

    def judge(self, evidence: Any, situation: Any, state: Any) -> Any:
        raise AssertionError


class NoMirror:
    """In the place of MLflow."""

    def start(self) -> None: ...

    def poke(self) -> None: ...

    def close(self, patience: float, begin: bool = True) -> None: ...


trouble = types.SimpleNamespace(cause=lambda: None)
TINY = {
    "campaign": {"name": "tiny", "rounds": 1},
    "data": {"kind": "teacher", "inputs": 4, "units": 4, "classes": 3, "rows": 120},
    "training": {"examples_per_round": 32, "final_examples": 32},
    "probe": {"examples": 32, "blocks": 2},
    "members": [{"name": "m", "strategy": {"kind": "a_module_of_trouble:Trouble"}}],
    "pool": {"kind": "serial"},
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A configuration whose strategy does what ``trouble.cause`` says; without MLflow."""
    module = types.ModuleType("a_module_of_trouble")
    module.Trouble = Trouble  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Trouble, "__module__", module.__name__)
    monkeypatch.setattr(raygrow.app, "_mirror", lambda *arguments: NoMirror())
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    yield "tiny.yaml"
    trouble.cause = lambda: None


def raising(error: BaseException) -> Callable[[], None]:
    def cause() -> None:
        raise error

    return cause


@pytest.mark.parametrize(
    ("error", "code", "event"),
    [
        (ZeroDivisionError("oh"), 3, "failed"),
        (CheckpointError("checkpoint 1234: cannot read weights.safetensors"), 3, "failed"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (raygrow.app.Interrupted("SIGTERM"), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_what_began_and_could_not_end_is_kept_and_resumed(
    tiny: str, error: BaseException, code: int, event: str
) -> None:
    """Exit code 2 would say that nothing was begun or created."""
    trouble.cause = raising(error)
    result = call("run", tiny, "--out", "run")
    assert "Traceback" not in result.output
    assert "resume run" in result.stderr
    types_ = [json.loads(line)["type"] for line in Path("run/events.jsonl").read_text().splitlines()]
    assert types_ == ["started", "reported", "closed", event]
    assert json.loads(Path("run/summary.json").read_text())["interrupted"] is True
    assert result.exit_code == code
    trouble.cause = lambda: None
    result = call("resume", "run", "--pool", "serial")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("run/summary.json").read_text())["interrupted"] is False


def test_run_names_its_folder_first_and_leaves_it_complete(tiny: str) -> None:
    result = call("run", tiny)
    assert result.exit_code == 0, result.output
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"tiny-\d{8}-\d{6}", folder.name)
    assert result.stderr.splitlines()[0] == f"campaign folder: {folder}"
    left = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "events.jsonl", "moves.parquet", "summary.json", "checkpoints", "report.html"} <= left
    # A finished one is summarised, and nothing is run again.
    before = (folder / "events.jsonl").read_bytes()
    assert call("resume", str(folder)).exit_code == 0
    assert (folder / "events.jsonl").read_bytes() == before
    assert call("lineage", str(folder), "--member", "m").exit_code == 0
    nodes = json.loads(call("lineage", str(folder), "--format", "json").stdout)
    assert [node["member"] for node in nodes] == ["m"]
    assert "members: m\n" in refused("lineage", str(folder), "--member", "x")
