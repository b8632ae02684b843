"""The configuration: what is refused and in which words, what is resolved, and that every field explains itself."""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from pydantic import TypeAdapter

from raygrow.comparison_config import is_comparison, load_comparison
from raygrow.config import FAMILIES, SECTIONS, fields_of, kind_name, load_plan, resolved, to_yaml
from raygrow.data import SOURCES
from raygrow.document import local_pool, parse_assignments, read_document
from raygrow.errors import ConfigError
from raygrow.growth.initializers import Tiny
from raygrow.population.plan import Member, Plan
from raygrow.population.selection import Auction, Independent
from raygrow.strategies import AbstractStrategy, Mdl, Rl

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
CONFIGS = [path for path in FILES if not is_comparison(read_document(path))]
DIGITS: Mapping[str, Any] = {"data": {"kind": "digits"}}


def refusal(raw: Mapping[str, Any] | str | Path, overrides: Mapping[str, Any] | None = None) -> str:
    """The message of a refusal: one line."""
    with pytest.raises(ConfigError, match=r"\S") as caught:
        load_plan(raw, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def with_member(**member: Any) -> dict[str, Any]:
    return {**DIGITS, "members": [{"strategy": {"kind": "mdl"}, **member}]}


# Unknown keys

UNKNOWN = [
    ({**DIGITS, "memebrs": []}, "memebrs", "members"),
    ({**DIGITS, "campain": {}}, "campain", "campaign"),
    ({"data": {"kind": "digits", "fraction": 1}}, "data.fraction", "fractions"),
    ({**DIGITS, "selection": {"kind": "auction", "added_flops": 5}}, "selection.added_flops", "added_flops_per_round"),
    ({**DIGITS, "selection": {"kind": "independent", "kinds": 5}}, "selection.kinds", "kind"),
    (with_member(strategie={}), "members.0.strategie", "strategy"),
    (with_member(strategy={"kind": "mdl", "alhpa": 0.1}), "members.0.strategy.alhpa", "alpha"),
    (with_member(initializer={"kind": "gradmax", "kindd": 1}), "members.0.initializer.kindd", "kind"),
    (with_member(training={"learning": 1}), "members.0.training.learning", None),
    (with_member(growth={"candidate": 1}), "members.0.growth.candidate", "candidates"),
    (with_member(probe={"exampels": 1}), "members.0.probe.exampels", "examples"),
]


@pytest.mark.parametrize(("raw", "key", "close"), UNKNOWN, ids=[str(one[1]) for one in UNKNOWN])
def test_unknown_keys_are_refused_with_the_closest_known_one(
    raw: Mapping[str, Any], key: str, close: str | None
) -> None:
    message = refusal(raw)
    assert f"unknown key `{key}`" in message
    assert "; known: " in message
    if close is not None:
        assert f"(did you mean `{close}`?)" in message


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_keys_are_refused_in_every_section(section: str) -> None:
    first = dataclasses.fields(SECTIONS[section])[0].name
    message = refusal({**DIGITS, section: {first + "z": 1}})
    assert f"unknown key `{section}.{first}z` (did you mean `{first}`?)" in message
    for field in dataclasses.fields(SECTIONS[section]):
        assert field.name in message


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_kind_is_refused_with_the_list(family: str) -> None:
    kinds = [kind_name(cls) for cls in FAMILIES[family][1]]
    for wrong, close in ((kinds[0] + "x", kinds[0]), ("qqq", None), (5, None), (["mdl"], None), ({"a": 1}, None)):
        part = {"kind": wrong}
        if family == "baseline":
            # A campaign has none; a comparison lists them.
            path = "baselines.0"
            with pytest.raises(ConfigError, match=r"\S") as caught:
                load_comparison({"data": {"digits": DIGITS["data"]}, "baselines": [part]})
            message = str(caught.value)
        else:
            raw = with_member(**{family: part}) if family in ("strategy", "initializer") else {**DIGITS, family: part}
            path = f"members.0.{family}" if family in ("strategy", "initializer") else family
            message = refusal(raw)
        assert f"`{path}.kind`" in message
        assert repr(wrong) in message
        assert all(kind in message for kind in kinds)
        assert close is None or f"did you mean `{close}`?" in message


def test_what_must_be_there_is_asked_for() -> None:
    assert "`data` is required, for example `data: {kind: digits}`; kinds: digits, " in refusal({})
    assert "`data.kind` is required; kinds: digits, " in refusal({"data": {}})
    assert "`data.kind` is required" in refusal({"data": None})
    assert "`data.path`" in refusal({"data": {"kind": "parquet"}})
    assert "`members.0.strategy` is required; kinds: mdl, " in refusal({**DIGITS, "members": [{"name": "a"}]})
    assert "`members.1.strategy.kind` is required" in refusal(
        {**DIGITS, "members": [{"strategy": "mdl"}, {"strategy": {"alpha": 0.1}}]}
    )
    assert "`members` must name at least one" in refusal({**DIGITS, "members": []})
    both = [{"strategy": "mdl"}, {"name": "mdl", "strategy": "rl"}]
    assert "`members` must be distinct, but got ['mdl', 'mdl']" in refusal({**DIGITS, "members": both})


# Wrong types and ranges

WRONG = [
    ("campaign.seed", -1),
    ("campaign.seed", "x"),
    ("campaign.seed", 1.5),
    ("campaign.rounds", -1),
    ("campaign.rounds", [3]),
    ("campaign.name", "a/b"),
    ("campaign.name", ".hidden"),
    ("campaign.name", ""),
    ("campaign.name", 7),
    ("campaign.mode", "async"),
    ("network.family", "transformer"),
    ("network.activation", "sine"),
    ("network.activation", "identity"),
    ("training.optimizer", "lion"),
    ("training.lr", 0),
    ("training.lr", float("nan")),
    ("training.lr", float("inf")),
    ("training.lr", "fast"),
    ("training.final_lr", 0),
    ("training.final_lr", float("nan")),
    ("training.batch_size", 0),
    ("training.batch_size", 2.5),
    ("training.examples_per_round", -1),
    ("training.examples_per_round", "two epochs"),
    ("training.examples_per_round", None),
    ("training.final_examples", "4e3"),
    ("growth.moves", ["shrink"]),
    ("growth.moves", "widen"),
    ("growth.moves", []),
    ("growth.units", [0]),
    ("growth.units", []),
    ("growth.units", 4),
    ("growth.candidates", 0),
    ("growth.statistics_examples", 3),
    ("growth.price", -1e-9),
    ("growth.price", float("inf")),
    ("growth.patience", 0),
    ("probe.examples", 0),
    ("probe.blocks", 0),
    ("budget.max_flops_per_example", 0),
    ("budget.max_params", "many"),
    ("budget.max_train_flops", 0.5),
    ("budget.max_train_flops", float("inf")),
    ("pool.kind", "threads"),
    ("pool.actors", 0),
    ("pool.cpus_per_actor", 0),
    ("pool.cpus_per_actor", float("inf")),
    ("pool.gpus_per_actor", -1),
    ("checkpoints.keep", "none"),
    ("tracking.uri", 5),
    ("selection.added_flops_per_round", 0),
    ("data.fractions", [0.5, 0.5]),
    ("data.fractions", [0.5, 0.6, 0.1]),
    ("data.search_fraction", 1.0),
    ("data.split_seed", -1),
    ("data.standardize", "perhaps"),
    ("members.0.seed", -1),
    ("members.0.name", "a b"),
    ("members.0.strategy.alpha", 1.0),
    ("members.0.strategy.alpha", "small"),
    ("members.0.training.lr", 0),
    ("members.0.growth.patience", "long"),
    ("members.0.probe.blocks", 0),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}={value!r}" for key, value in WRONG])
def test_wrong_types_and_values_out_of_range_are_refused_naming_key_and_value(key: str, value: Any) -> None:
    raw = {**with_member(strategy={"kind": "mdl"}), "selection": {"kind": "auction"}}
    message = refusal(raw, {key: value})
    *section, last = key.split(".")
    assert all(part in message for part in section)
    assert last in message
    shown = value[0] if isinstance(value, list) and len(value) == 1 else value
    if value not in ([], None):
        assert str(shown) in message or repr(shown) in message


@pytest.mark.parametrize("section", [*SECTIONS, "data", "selection", "members"])
@pytest.mark.parametrize("value", [5, [1]])
def test_a_section_that_is_no_mapping_is_refused(section: str, value: Any) -> None:
    message = refusal({**DIGITS, section: value})
    assert f"`{section}" in message
    assert str(value) in message or section == "members"


def test_empty_sections_are_all_default() -> None:
    assert load_plan({**DIGITS, **dict.fromkeys(SECTIONS)}) == load_plan({**DIGITS, **{name: {} for name in SECTIONS}})


# Files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2", "is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        ("\tdata: {}", "is not valid YAML"),
        ("data: !!python/object:os.system {}", "is not valid YAML"),
        ("data: {kind: digits}\n---\ndata: {}", "is not valid YAML"),
        ("campaign: {name: 2024-02-30}", "is not valid YAML"),
        ("- 1\n- 2", "must hold keys such as `data:`, but holds list"),
        ("just words", "must hold keys such as `data:`, but holds str"),
        ("", "must hold keys such as `data:`, but holds NoneType"),
    ],
)
def test_files_that_are_no_configuration_are_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert refusal(str(path)) == message


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot be read")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml: cannot be read" in refusal(tmp_path / "binary.yaml")


# Overrides


def test_assignments_are_read_as_yaml() -> None:
    words = ["a.b=3", "a.c=1e-3", "d=[1, 2]", "e=null", "f=x=y", "g=", "h='1'", "i=true", "j=1 epoch"]
    assert parse_assignments(words) == {
        "a.b": 3, "a.c": "1e-3", "d": [1, 2], "e": None, "f": "x=y", "g": None, "h": "1", "i": True, "j": "1 epoch",
    }  # fmt: skip


@pytest.mark.parametrize("word", ["campaign.seed", "=3", "", "a=[1", "a={", "a=2024-13-45"])
def test_a_word_that_assigns_nothing_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set ") as caught:
        parse_assignments([word])
    assert "\n" not in str(caught.value)
    assert (word.split("=", 1)[1] or word if "=" in word else repr(word)) in str(caught.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("members.3.name", "`members.3` must be an index from 0 to 2"),
        ("members.-1.name", "`members.-1` must be an index from 0 to 2"),
        ("members.mdl.name", "`members.mdl` must be an index from 0 to 2"),
        ("members.².name", "`members.²` must be an index from 0 to 2"),
        ("data.kind.more", "`data.kind.more` lies below a plain value"),
        ("campaign.seed.x.y", "unknown key|must hold|campaign.seed"),
        ("growth.unit", "unknown key `growth.unit` (did you mean `units`?)"),
        ("grwoth.units", "unknown key `grwoth` (did you mean `growth`?)"),
        ("members.0.strategy.alph", "unknown key `members.0.strategy.alph` (did you mean `alpha`?)"),
        ("data..path", "unknown key `data.`"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, words: str) -> None:
    message = refusal(DIGITS, {path: 1})
    assert any(word in message for word in words.split("|"))


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    base = {**DIGITS, "training": {"lr": 0.5}, "growth": {"units": [1, 2]}}
    plan = load_plan(
        base, {"campaign.seed": 3, "members.1.strategy.alpha": "1e-3", "growth.units.1": 9, "training.lr": "1e-3"}
    )
    assert plan.campaign.seed == 3
    assert plan.growth.units == (1, 9)
    assert plan.training.lr == 1e-3
    assert [m.name for m in plan.members] == ["mdl", "significance", "rl"]
    assert getattr(plan.members[1].strategy, "alpha", None) == 1e-3
    assert base == {**DIGITS, "training": {"lr": 0.5}, "growth": {"units": [1, 2]}}
    # The defaults were not changed for the next one.
    assert getattr(load_plan(DIGITS).members[1].strategy, "alpha", None) == 0.05
    assert load_plan(DIGITS, {"data": "breast_cancer"}).data.kind == "breast_cancer"
    assert load_plan(DIGITS, {"growth.price": None}).growth.price is None


def test_numbers_as_people_write_them_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as a string."""
    path = tmp_path / "c.yaml"
    path.write_text(
        textwrap.dedent(
            """
            data: {kind: digits, search_fraction: 2e-1}
            training: {lr: 1e-3}
            growth: {price: 1E-5, units: [4, 8]}
            budget: {max_train_flops: 1e12}
            members: [{strategy: {kind: rl, noise_sd: 2e-2}, training: {lr: 3e-3}}]
            selection: {kind: auction, added_flops_per_round: 1e3}
            """
        )
    )
    plan = load_plan(path)
    assert (plan.training.lr, plan.growth.price, plan.budget.max_train_flops) == (1e-3, 1e-5, 1e12)
    assert (plan.data.search_fraction, plan.members[0].training.lr) == (0.2, 3e-3)
    assert plan.selection == Auction(added_flops_per_round=1000.0)
    assert plan.members[0].strategy == Rl(noise_sd=0.02)


@pytest.mark.parametrize(
    "length", ["1 epoch", "0.5 epochs", "2epochs", "0.5 epochs, at least 2000", "1 epoch,at least 1", 0, 17]
)
def test_lengths_take_examples_and_epochs(length: str | int) -> None:
    plan = load_plan(DIGITS, {"training.final_examples": length, "training.examples_per_round": length})
    assert plan.training.final_examples == length
    assert plan.members[0].training.examples_per_round == length
    assert type(plan.training.final_examples) is type(length)


def test_members_inherit_the_shared_sections_and_override_single_keys() -> None:
    plan = load_plan(
        {
            **DIGITS,
            "training": {"lr": 0.1, "batch_size": 8},
            "probe": {"blocks": 3},
            "members": [{"strategy": "mdl"}, {"strategy": "rl", "training": {"lr": 0.2}, "growth": {"price": 0.0}}],
        }
    )
    one, two = plan.members
    assert (one.name, two.name, one.initializer) == ("mdl", "rl", Tiny())
    assert (one.training.lr, one.training.batch_size, one.probe.blocks) == (0.1, 8, 3)
    assert (two.training.lr, two.training.batch_size, two.probe.blocks) == (0.2, 8, 3)
    assert (one.growth.price, two.growth.price) == (None, 0.0)
    assert plan.training.lr == 0.1


# Resolved


def round_trip(plan: Plan) -> Plan:
    return load_plan(yaml.safe_load(to_yaml(resolved(plan))))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_resolved_file_is_the_same_plan(path: Path, tmp_path: Path) -> None:
    plan = load_plan(path)
    again = tmp_path / "config.yaml"
    again.write_text(to_yaml(resolved(plan)))
    assert load_plan(again) == plan
    assert resolved(load_plan(again)) == resolved(plan)


def test_there_are_configurations_to_check() -> None:
    assert CONFIGS


@pytest.mark.parametrize("kind", [kind_name(cls) for cls in SOURCES])
def test_every_data_kind_survives_the_round_trip(kind: str) -> None:
    table = {"path": "a b.parquet", "target": "t*", "features": ["a", "b"], "shape": [2, 1, 1]}
    extra = {
        "parquet": table, "csv": table, "npz": {"path": "x.npz", "shape": [1, 8, 8]}, "digits": {"shape": [1, 8, 8]},
        "image_folder": {"path": "images", "size": [24, 32], "channels": 1}, "torchvision": {"name": "MNIST", "root": "~"},
    }.get(kind, {})  # fmt: skip
    plan = load_plan({"data": {"kind": kind, "fractions": [0.5, 0.25, 0.25], "split_seed": 4, **extra}})
    assert round_trip(plan) == plan


def test_plans_with_overrides_of_every_sort_survive_the_round_trip() -> None:
    plan = load_plan(
        {
            "data": {"kind": "teacher", "scale": 0.1, "seed": 2},
            "campaign": {"name": "null", "seed": 2**62, "rounds": 0},
            "network": {"activation": "tanh"},
            "training": {"lr": 1 / 3, "examples_per_round": "0.5 epochs", "final_examples": 0},
            "growth": {"moves": ["add_edge"], "units": [7], "price": 1e-300},
            "members": [
                {"name": "1e3", "strategy": {"kind": strategy}, "initializer": {"kind": initializer}, "seed": i,
                 "training": {"lr": 1e-7, "optimizer": "sgd"}, "growth": {"price": 0, "patience": 9},
                 "probe": {"examples": "2 epochs", "blocks": 1}} if i == 0 else
                {"name": f"m{i}", "strategy": {"kind": strategy}, "initializer": {"kind": initializer}}
                for i, (strategy, initializer) in enumerate(
                    (s, n)
                    for s in map(kind_name, FAMILIES["strategy"][1])
                    for n in map(kind_name, FAMILIES["initializer"][1])
                )
            ],
            "selection": {"kind": "independent"},
            "budget": {"max_flops_per_example": 10**9, "max_train_flops": 1e15},
            "pool": {"kind": "serial", "actors": 2, "gpus_per_actor": 0.25},
            "checkpoints": {"keep": "all"},
            "tracking": {"uri": "http://x:5000", "experiment": "on"},
        }
    )  # fmt: skip
    assert round_trip(plan) == plan
    assert plan.campaign.name == "null"
    assert plan.tracking.experiment == "on"


def test_every_default_is_valid_and_written_out() -> None:
    plan = load_plan(DIGITS)
    text = resolved(plan)
    assert set(text) == {field.name for field in dataclasses.fields(Plan)}
    for name, cls in SECTIONS.items():
        assert set(text[name]) == {field.name for field in dataclasses.fields(cls)}
        assert TypeAdapter(cls).validate_python({}) == cls() == getattr(plan, name)
        # The default of every key is read back from its own YAML.
        assert TypeAdapter(cls).validate_python(yaml.safe_load(to_yaml(text[name]))) == cls()
    for member in text["members"]:
        assert set(member) == {field.name for field in dataclasses.fields(Member)}
    for family in ("strategy", "initializer", "selection"):
        for cls in FAMILIES[family][1]:
            assert TypeAdapter(cls).validate_python({"kind": kind_name(cls)}) == cls()


# Classes of the user's own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(AbstractStrategy):
    """Without a kind."""

    level: float = 0.5

    def __post_init__(self) -> None:
        if not self.level > 0:
            raise ValueError(f"`level > 0` must hold, but got {self.level}")

    def shortlist(self, proposals: Any, situation: Any, state: Any, rng: np.random.Generator) -> tuple[Any, ...]:
        return ()

    def judge(self, evidence: Any, situation: Any, state: Any) -> Any:
        raise AssertionError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named(Plain):
    """With a kind, as the documentation of ``AbstractStrategy`` asks."""

    kind: str = "mine"


@pytest.fixture
def mine() -> Iterator[str]:
    """A module that can be imported by name, wherever pytest put this one."""
    module = types.ModuleType("a_module_of_the_user")
    for cls in (Plain, Named):
        setattr(module, cls.__name__, cls)
    before = {cls: cls.__module__ for cls in (Plain, Named)}
    for cls in before:
        cls.__module__ = module.__name__
    sys.modules[module.__name__] = module
    yield module.__name__
    del sys.modules[module.__name__]
    for cls, name in before.items():
        cls.__module__ = name


@pytest.mark.parametrize("name", ["Plain", "Named"])
def test_a_class_named_in_the_file_is_used_and_found_again_on_resume(mine: str, name: str) -> None:
    kind = f"{mine}:{name}"
    plan = load_plan(with_member(name="m", strategy={"kind": kind, "level": 0.25}))
    assert type(plan.members[0].strategy).__name__ == name
    assert plan.members[0].strategy == {"Plain": Plain, "Named": Named}[name](level=0.25)
    assert round_trip(plan) == plan


def test_a_member_of_a_user_s_class_has_a_name_without_being_given_one(mine: str) -> None:
    plan = load_plan(with_member(strategy={"kind": f"{mine}:Plain"}))
    assert re.fullmatch(r"[\w.-]+", plan.members[0].name)


def test_an_object_given_in_python_is_used_as_it_is_and_found_again(mine: str) -> None:
    plain, rl = Plain(level=2.0), Rl(noise_sd=0.5)
    plan = load_plan(
        {**DIGITS, "members": [{"name": "a", "strategy": plain}, {"strategy": rl}], "selection": Independent()}
    )
    assert plan.members[0].strategy is plain
    assert plan.members[1].strategy is rl
    assert plan.members[1].name == "rl"
    assert round_trip(plan) == plan


def test_numbers_of_a_user_s_class_are_numbers_too(mine: str) -> None:
    raw = yaml.safe_load(f"{{kind: '{mine}:Plain', level: 1e-3}}")
    plan = load_plan(with_member(name="m", strategy=raw))
    assert plan.members[0].strategy == Plain(level=1e-3)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no_such_module_here:Mine", "No module named 'no_such_module_here'"),
        ("raygrow.strategies:Nothing", "has no attribute 'Nothing'"),
        ("raygrow.strategies:describe", "must be a subclass of raygrow.strategies.base.AbstractStrategy"),
        ("raygrow.population.selection:Auction", "must be a subclass of raygrow.strategies.base.AbstractStrategy"),
        ("raygrow.strategies:AbstractStrategy", "AbstractStrategy"),
        (":Mine", "Mine"),
        ("raygrow.strategies:", "raygrow.strategies:"),
        (".relative:Mine", ".relative:Mine"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused(kind: str, words: str) -> None:
    message = refusal(with_member(strategy={"kind": kind}))
    assert "`members.0.strategy" in message
    assert words in message


def test_fields_of_a_user_s_class_are_checked_by_the_class(mine: str) -> None:
    assert "`members.0.strategy`: `level > 0` must hold, but got -1" in refusal(
        with_member(strategy={"kind": f"{mine}:Plain", "level": -1})
    )
    assert "lvel" in refusal(with_member(strategy={"kind": f"{mine}:Plain", "lvel": 1}))


# Descriptions


@pytest.mark.parametrize("cls", [*SECTIONS.values()], ids=lambda cls: cls.__name__)
def test_every_field_of_every_section_is_described(cls: type[Any]) -> None:
    properties = TypeAdapter(cls).json_schema()["properties"]
    assert set(properties) == {field.name for field in dataclasses.fields(cls)}
    for name, schema in properties.items():
        assert len(schema.get("description", "")) > 10, name
    assert [name for name, _, _ in fields_of(cls) if name != "kind"] == [n for n in properties if n != "kind"]


@pytest.mark.parametrize("cls", [c for _, members in FAMILIES.values() for c in members], ids=lambda c: c.__name__)
def test_every_parameter_of_every_kind_is_described(cls: type[Any]) -> None:
    assert cls.__doc__
    found = fields_of(cls)
    required = {f.name: "x" for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    assert {name for name, _, _ in found} == {field.name for field in dataclasses.fields(cls)} - {"kind"}
    for name, default, description in found:
        assert len(description) > 10, name
        assert "\n\n" not in description
        if isinstance(default, bool | int | float):
            assert default == getattr(cls(**required), name)


def test_members_and_the_plan_itself_are_described() -> None:
    """Their schema cannot be drawn (abstract classes inside): the text under each field is read from the source."""
    source = Path(sys.modules[Plan.__module__].__file__ or "").read_text()
    for cls in (Member,):
        body = source.split(f"class {cls.__name__}(Section)")[1].split("\n@dataclass")[0]
        for field in dataclasses.fields(cls):
            assert re.search(rf'    {field.name}: [^\n]*\n    """[^"]{{10,}}"""', body), field.name


def test_the_contract_s_block_is_a_configuration() -> None:
    """The example of the outward interface, key for key."""
    block = """
    campaign: {name: digits, seed: 0, rounds: 8, mode: sync}
    data:     {kind: digits}
    network:  {family: dag, activation: relu}
    training: {optimizer: adam, lr: 0.01, batch_size: 32, examples_per_round: 4000, final_examples: 30000}
    growth:   {moves: [widen, add_node, add_edge], units: [1, 2, 4, 8, 16], candidates: 2, statistics_examples: 2048,
               price: null, patience: 3}
    probe:    {examples: 4000, blocks: 8}
    members:
      - {name: mdl,          strategy: {kind: mdl},          initializer: {kind: tiny}}
      - {name: significance, strategy: {kind: significance}, initializer: {kind: tiny}}
      - {name: rl,           strategy: {kind: rl},           initializer: {kind: tiny}}
    selection: {kind: auction, added_flops_per_round: null}
    budget:   {max_flops_per_example: 8000, max_params: null, max_train_flops: null}
    pool:     {kind: ray, actors: null, cpus_per_actor: 0.5, gpus_per_actor: 0}
    checkpoints: {keep: heads}
    tracking: {uri: null, experiment: raygrow}
    """
    raw = yaml.safe_load(textwrap.dedent(block))
    plan = load_plan(raw)
    assert plan.members[0].strategy == Mdl()
    text = resolved(plan)
    for section, keys in raw.items():
        if isinstance(keys, dict):
            assert {key: text[section][key] for key in keys} == keys


# The pool's section, read ahead of the rest


@pytest.mark.parametrize("document", [{}, {"pool": None}, {"pool": {"actors": 2}, "members": [{"name": "a"}] * 5}])
def test_the_pool_read_ahead_is_the_plan_s(document: dict[str, Any]) -> None:
    whole = {**document, "data": {"kind": "digits"}}
    if "members" in whole:
        whole["members"] = [{"name": f"m{i}", "strategy": {"kind": "mdl"}} for i in range(5)]
    plan = load_plan(whole)
    assert local_pool(read_document(document)) == (plan.pool, len(plan.members))


@pytest.mark.parametrize(
    "document",
    [{"pool": {"actors": 0}}, {"pool": {"actors": "many"}}, {"pool": {"actor": 1}}, {"pool": 3}, {"members": 3}],
)
def test_a_pool_that_makes_no_sense_begins_nothing(document: dict[str, Any]) -> None:
    assert local_pool(document)[0].kind == "serial"
    with pytest.raises(ConfigError):
        load_plan({"data": {"kind": "digits"}, **document})
