"""Configs: what is merged, what is refused, and what the messages say."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from utils.config import REPOSITORY, ConfigError, key, load_config, load_typed, resolve_path


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(("variant", "batch_size"), [("b-32", 24), ("b-16", 12), ("h-14", 2)])
def test_official_configs_train_as_the_release_does(variant, batch_size):
    config = load_config(f"configs/dist-yt-web-pt-vit-{variant}.json")
    assert config["arch"]["type"] == f"TVTSv2_{variant.upper().replace('-', '_')}"
    assert config["arch"]["start_from"] == "clip"
    assert config["data"]["batch_size"] == batch_size
    assert config["optimizer"] == {
        "new_lr": 1e-4,
        "clip_lr": 1e-7,
        "weight_decay": 0.05,
        "betas": [0.9, 0.999],
        "eps": 1e-6,
        "max_grad_norm": None,
    }
    assert config["lr_scheduler"]["milestones"] == [6, 8]
    assert config["loss"] == {"temperature": 0.05, "sort_weight": 2.0, "gather": "official"}
    assert config["trainer"]["epochs"] == 10


def test_file_is_put_over_the_defaults_and_overrides_over_the_file(tmp_path):
    path = write(tmp_path / "c.json", {"seed": 5, "data": {"batch_size": 3}})
    config = load_config(path, ["data.batch_size=7", "trainer.precision=fp32", "arch.clip_weights=a b.pt"])
    assert (config["seed"], config["data"]["batch_size"]) == (5, 7)
    assert config["trainer"]["precision"] == "fp32"
    assert config["arch"]["clip_weights"] == "a b.pt"
    assert config["data"]["reader"] == "pyav"  # a default beside an override stays


def test_overrides_reach_into_lists(tmp_path):
    path = write(tmp_path / "c.json", {})
    config = load_config(path, ["data.train.1.root=/disk/web", 'data.train.0.extra={"a": 1}'])
    assert config["data"]["train"][1]["root"] == "/disk/web"
    assert config["data"]["train"][0]["extra"] == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trainr": {}}, "unknown key 'trainr'; did you mean 'trainer'"),
        ({"trainer": {"epoch": 3}}, "unknown key 'trainer.epoch'; did you mean 'epochs'"),
        ({"zzz": 1}, "known keys: name, seed"),
        ({"trainer": 3}, "trainer must be an object"),
        ('{"a": 1,\n nonsense}', "not valid JSON: line 2"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, content, message):
    path = write(tmp_path / "c.json", content)
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.epochs", "has no '='"),
        ("trainer.epoch=3", "did you mean 'epochs'"),
        ("trianer.epochs=3", "did you mean 'trainer'"),
        ("seed.a=3", "has no key"),
        ("data.train.5.root=x", "a list of 2"),
        ("data.train.x=1", "a list of 2"),
    ],
)
def test_mistakes_in_an_override_are_named(tmp_path, override, message):
    path = write(tmp_path / "c.json", {})
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        load_config(tmp_path / "nowhere.json")


def test_paths_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("configs/demo.json") == REPOSITORY / "configs/demo.json"
    (tmp_path / "mine").mkdir()
    assert resolve_path("mine").resolve() == tmp_path / "mine"


@dataclass(frozen=True)
class Inner:
    rate: float = key("a number", 0.5)
    steps: int | None = key("a number or none", None)
    kinds: list[float] = key("some", [0.9, 0.99])


@dataclass(frozen=True)
class Outer:
    name: str = key("a text")
    kind: Literal["a", "b"] = key("one of two", "a")
    on: bool = key("a switch", False)
    inner: Inner = key("a section", Inner())
    data: dict[str, Any] = key("anything", {})


def typed(tmp_path, content=None, *overrides: str) -> Outer:
    return load_typed(Outer, write(tmp_path / "c.json", content or {"name": "x"}), overrides)


def test_a_typed_config_has_its_defaults_and_what_a_file_says(tmp_path):
    assert typed(tmp_path) == Outer("x")
    content = {"name": "y", "kind": "b", "inner": {"rate": 2, "steps": 3}, "data": {"z": [1]}}
    found = typed(tmp_path, content)
    assert found == Outer("y", "b", False, Inner(2.0, 3), {"z": [1]})
    assert isinstance(found.inner.rate, float)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("on=True", True), ("on=true", True), ("on=False", False), ("on=false", False),
        ("name=2024", "2024"), ("name=1e3", "1e3"), ("name=True", "True"), ("name=null", "null"),
        ("inner.rate=.0001", 1e-4), ("inner.rate=1e-5", 1e-5), ("inner.rate=3", 3.0),
        ("inner.steps=None", None), ("inner.steps=null", None), ("inner.steps=7", 7),
        ("inner.kinds=[1, 0.5]", [1.0, 0.5]), ("kind=b", "b"), ("data.deep=4", 4), ("data.text=a b", "a b"),
    ],
)  # fmt: skip
def test_the_command_line_is_understood_by_the_type_of_the_key(tmp_path, override, expected):
    found: Any = typed(tmp_path, None, override)
    for part in override.partition("=")[0].split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ({}, [], "'name' is missing"),
        ({"name": 3}, [], "name is 3; it must be a text"),
        ({"name": "x", "on": 1}, [], "on is 1; it must be true or false"),
        ({"name": "x", "inner": {"rate": True}}, [], "inner.rate is True; it must be a number"),
        ({"name": "x", "inner": {"rate": None}}, [], "inner.rate is None; it must be a number"),
        ({"name": "x", "inner": {"steps": 2.5}}, [], "inner.steps is 2.5; it must be a whole number or null"),
        ({"name": "x", "inner": {"kinds": [1, "z"]}}, [], "inner.kinds.1 is 'z'; it must be a number"),
        ({"name": "x", "inner": 3}, [], "inner must be an object"),
        ({"name": "x"}, ["on=yes"], "on is 'yes'; it must be true or false"),
        ({"name": "x"}, ["kind=c"], "kind is 'c'; it must be one of a, b"),
        ({"name": "x"}, ["inner.rat=1"], "did you mean 'rate'"),
        ({"name": "x"}, ["inner.steps=1.5"], "inner.steps is 1.5"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_key(tmp_path, content, overrides, message):
    path = write(tmp_path / "c.json", content)
    with pytest.raises(ConfigError, match=message):
        load_typed(Outer, path, overrides)
