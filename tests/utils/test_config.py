"""Configs: what is merged, what is refused, and what the messages say."""

import json

import pytest

from utils.config import REPOSITORY, ConfigError, load_config, resolve_path


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
