"""Configs: what is merged, what is refused, and what the messages say."""

import json

import pytest

from utils import schema
from utils.config import REPOSITORY, ConfigError, as_dict, load_config, resolve_path
from utils.schema import EvaluationConfig, LossConfig, OptimizerConfig, PretrainingConfig


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def value_of(config, name):
    """What lies at a dotted key of a config."""
    node = as_dict(config)
    for part in name.split("."):
        node = node[int(part) if isinstance(node, list) else part]
    return node


@pytest.mark.parametrize(("variant", "batch_size"), [("b-32", 24), ("b-16", 12), ("h-14", 2)])
def test_official_configs_train_as_the_release_does(variant, batch_size):
    config = load_config(PretrainingConfig, f"configs/dist-yt-web-pt-vit-{variant}.json")
    assert config.arch.type == f"TVTSv2_{variant.upper().replace('-', '_')}"
    assert config.arch.start_from == "clip"
    assert config.data.batch_size == batch_size
    assert config.optimizer == OptimizerConfig(
        new_lr=1e-4, clip_lr=1e-7, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-6, max_grad_norm=None
    )
    assert config.lr_scheduler.milestones == [6, 8]
    assert config.loss == LossConfig(temperature=0.05, sort_weight=2.0, gather="official")
    assert config.trainer.epochs == 10


def test_file_is_put_over_the_defaults_and_overrides_over_the_file(tmp_path):
    path = write(tmp_path / "c.json", {"seed": 5, "data": {"batch_size": 3}})
    overrides = ["data.batch_size=7", "trainer.precision=fp32", "arch.clip_weights=a b.pt"]
    config = load_config(PretrainingConfig, path, overrides)
    assert (config.seed, config.data.batch_size) == (5, 7)
    assert config.trainer.precision == "fp32"
    assert config.arch.clip_weights == "a b.pt"
    assert config.data.reader == "pyav"  # a default beside an override stays


def test_a_config_read_from_what_it_was_written_to_is_the_same(tmp_path):
    config = load_config(PretrainingConfig, "configs/demo.json", ["lr_scheduler.options.min_lr=1e-6"])
    assert load_config(PretrainingConfig, write(tmp_path / "c.json", as_dict(config))) == config
    assert as_dict(config)["data"]["val"][1] == {"type": "webvid", "root": "data/demo/WebVid"}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("arch.freeze_text_embeddings=False", False),
        ("arch.freeze_text_embeddings=true", True),
        ("arch.compile=None", None),
        ("arch.activation_checkpointing=mlp", "mlp"),
        ("arch.activation_checkpointing=2", 2),
        ("optimizer.new_lr=.0001", 0.0001),
        ("optimizer.new_lr=1", 1.0),
        ("optimizer.max_grad_norm=None", None),
        ("optimizer.betas=[0.8, 0.95]", [0.8, 0.95]),
        ("name=2024", "2024"),
        ("name=1e5", "1e5"),
        ('name="null"', "null"),
        ("trainer.monitor=null", None),
        ("trainer.max_steps=1e3", 1000),
        ("trainer.device=0,1", "0,1"),
        ('trainer.fsdp={"blocks_per_unit": 2}', {"blocks_per_unit": 2, "reshard_after_forward": False}),
        ("data.train.1.root=/disk/web", "/disk/web"),
        ("data.val=[]", []),
        ("lr_scheduler.options.min_lr=1e-6", 1e-6),
    ],
)
def test_overrides_are_understood_as_the_type_of_their_key(override, value):
    config = load_config(PretrainingConfig, "configs/demo.json", [override])
    found = value_of(config, override.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trainr": {}}, "unknown key 'trainr'; did you mean 'trainer'"),
        ({"trainer": {"epoch": 3}}, "unknown key 'trainer.epoch'; did you mean 'epochs'"),
        ({"zzz": 1}, "known keys: name, seed"),
        ({"trainer": 3}, "trainer must be an object"),
        ([1], "the whole file must be an object"),
        ('{"a": 1,\n nonsense}', "not valid JSON: line 2"),
        ('{"seed": 1, "seed": 2}', "the key 'seed' is given twice"),
        ({"name": 2024}, "name is 2024; it must be a text"),
        ({"seed": "1"}, 'seed is "1"; it must be a whole number'),
        ({"data": {"train": [{"type": "webvid"}]}}, r"'data\.train\.0\.root' is missing"),
        (
            {"data": {"val": [{"type": "csv", "root": "x", "fils": "y"}]}},
            "'data.val.0.fils'; did you mean 'files'",
        ),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, content, message):
    path = write(tmp_path / "c.json", content)
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(PretrainingConfig, path)
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
        ("data.train.0.rot=x", "did you mean 'root'"),
        ("data.train=[]", "a list of one set or more"),
        ("data.train.1.type=yttemporal", "each with a type of its own, or a name"),
        ("data.train.1.name=yttemporal", "each with a type of its own, or a name"),
        ("data.train.1.name=a b", "a name of letters, digits, _, - and ."),
        ("data.train.1.weight=0.5", "a whole number from 1 on"),
        ("arch.freeze_text_embeddings=no", 'is "no"; it must be true or false'),
        ("arch.compile=1", "arch.compile is 1; it must be true or false, or null"),
        ("name=null", "name is null; it must be a text"),
        ("name=", "it must be a text"),
        ("loss.temperature=0", "loss.temperature is 0; it must be a number above 0"),
        ("loss.temperature=nan", "it must be a number above 0"),
        ("loss.gather=leen", "one of official, exact, lean"),
        ("trainer.monitor=val_loss", "'max' or 'min' and a metric"),
        ("trainer.monitor=max ", "'max' or 'min' and a metric"),
        ("trainer.monitor=best webvid_t2v_R1", "'max' or 'min' and a metric"),
        ("trainer.wandb=true", "a text, or null"),
        ("optimizer.betas=[0.9, 1]", r"optimizer.betas.1 is 1; it must be a number from 0 to below 1"),
        ("optimizer.betas=[0.9]", "a list of 2"),
        ("lr_scheduler.warmup_steps=-1", "a whole number from 0 on"),
        ("trainer.epochs=2.5", "a whole number from 1 on"),
    ],
)
def test_mistakes_in_an_override_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(PretrainingConfig, "configs/demo.json", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.reader=pyav", "it is a key of the config itself"),
        ("sliding_window_stride=0", "at least 1, or -1"),
        ('prompts=["a person"]', "prompts.0 .*with {} where the class goes"),
        ("prompts=[]", "a list of texts"),
        ("dsl_temperature=0", "a number from 0.003 on"),
        ("task=retreival", "one of retrieval, recognition, multiple_choice"),
    ],
)
def test_evaluations_are_checked_the_same_way(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(EvaluationConfig, "downstream/configs/msrvtt.json", [override])


def test_what_an_evaluation_must_give_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'task' is missing"):
        load_config(
            EvaluationConfig, write(tmp_path / "c.json", {"name": "x", "data": {"type": "csv", "root": "y"}})
        )


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        load_config(PretrainingConfig, tmp_path / "nowhere.json")


def test_the_page_of_the_keys_is_up_to_date():
    """`python -m utils.schema > docs/config.md` brings it up to date."""
    assert (REPOSITORY / "docs/config.md").read_text() == schema.page()


def test_paths_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("configs/demo.json") == REPOSITORY / "configs/demo.json"
    (tmp_path / "mine").mkdir()
    assert resolve_path("mine").resolve() == tmp_path / "mine"
