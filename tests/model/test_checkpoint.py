import os
import pathlib
import sys
import types
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from model import TVTSv2, create_model, load_checkpoint
from model.checkpoint import CheckpointError, WithoutValues, guess_variant, read_state_dict
from model.convert import convert
from model.convert import main as convert_command


def demo(sort_head=True):
    return create_model("TVTSv2_Demo", sort_head=sort_head)


def without_sort_head(state):
    return {name: value for name, value in state.items() if not name.startswith("pred_model.")}


def assert_filled(model, state):
    for name, value in model.state_dict().items():
        if name in state:
            assert torch.equal(value, state[name]), name


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return demo().state_dict()


class RunsCommand:
    """Unpickled naively, creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class OpensFile(RunsCommand):
    def __reduce__(self):
        return open, (self.path, "w")


class TouchesPath(RunsCommand):
    """By way of a state that a known class would act on."""

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.PosixPath(self.path),), {"anything": 1}


class GetsAttribute(RunsCommand):
    def __reduce__(self):
        return getattr, (OrderedDict, "fromkeys"), None, iter([1, 2]), iter([("key", RunsCommand(self.path))])


@pytest.fixture
def unknown_class_config():
    """An object of the class that the official training checkpoints pickle, whose module we do not have."""
    module = types.ModuleType("parse_config_dist_multi")

    class ConfigParser:
        pass

    ConfigParser.__module__, ConfigParser.__qualname__ = module.__name__, "ConfigParser"
    module.ConfigParser = ConfigParser
    sys.modules[module.__name__] = module
    config = ConfigParser()
    config.save_dir = pathlib.PosixPath("results")
    config.log_levels = {0: 30}
    yield config
    sys.modules.pop(module.__name__, None)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_released_files_load_with_and_without_a_sort_head(tmp_path, state, prefix, nested, legacy):
    released = {prefix + name: value for name, value in without_sort_head(state).items()}
    content = {"state_dict": released} if nested else released
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=not legacy)

    model = demo()
    report = load_checkpoint(model, tmp_path / "m.pth")
    assert_filled(model, without_sort_head(state))
    assert len(report.loaded) == len(released)
    assert report.fresh == [name for name in state if name.startswith("pred_model.")]
    assert "keeps its initial value: pred_model.type_embed" in str(report)

    headless = demo(sort_head=False)
    assert load_checkpoint(headless, tmp_path / "m.pth").fresh == []
    assert_filled(headless, state)


def test_training_checkpoint_with_optimiser_loads_with_and_without_a_sort_head(tmp_path, state):
    trained = demo()
    optimizer = torch.optim.AdamW(trained.parameters())
    trained.text_projection.square().sum().backward()
    optimizer.step()
    content = {
        "state_dict": trained.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "arch": "TVTSv2",
    }
    torch.save(content, tmp_path / "checkpoint-epoch3.pth")

    model = demo()
    report = load_checkpoint(model, tmp_path / "checkpoint-epoch3.pth")
    assert_filled(model, trained.state_dict())
    assert (report.fresh, report.ignored) == ([], [])

    headless = demo(sort_head=False)
    report = load_checkpoint(headless, tmp_path / "checkpoint-epoch3.pth")
    assert_filled(headless, trained.state_dict())
    assert all(name.startswith("pred_model.") for name in report.ignored)
    assert "ignored in the file" in str(report)


def test_half_precision_files_fill_float32_models(tmp_path, state):
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "m.safetensors")
    model = demo()
    load_checkpoint(model, tmp_path / "m.safetensors")
    assert_filled(model, {name: value.half().float() for name, value in state.items()})


def test_config_of_an_unknown_class_is_read_as_data(tmp_path, state, unknown_class_config):
    path = tmp_path / "checkpoint-epoch1.pth"
    prefixed = {f"module.{name}": value for name, value in state.items()}
    torch.save({"arch": "TVTSv2", "state_dict": prefixed, "config": unknown_class_config}, path)
    del sys.modules["parse_config_dist_multi"]
    model = demo()
    load_checkpoint(model, path)
    assert_filled(model, state)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("attack", [RunsCommand, OpensFile, TouchesPath, GetsAttribute])
def test_what_a_pickle_names_is_never_run(tmp_path, state, attack, protocol):
    target, path = tmp_path / "created", tmp_path / "m.pth"
    content = {"before": attack(target), "state_dict": state, "config": [attack(target)]}
    torch.save(content, path, pickle_protocol=protocol)
    model = demo()
    load_checkpoint(model, path)
    assert_filled(model, state)
    assert not target.exists()


def test_an_attack_in_the_old_format_is_read_as_data_and_not_run(tmp_path, state):
    target, path = tmp_path / "created", tmp_path / "m.pth"
    torch.save(
        {"state_dict": state, "config": RunsCommand(target)}, path, _use_new_zipfile_serialization=False
    )
    model = demo()
    load_checkpoint(model, path)
    assert_filled(model, state)
    assert not target.exists()


def test_another_variant_is_refused_by_name(tmp_path, state):
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in create_model("TVTSv2_H_14").state_dict().items()}
    keep = {"video_model.conv1.weight", *(name for name in shapes if name.endswith(".ln_1.weight"))}
    save_file({name: torch.zeros(shapes[name]) for name in keep}, tmp_path / "h.safetensors")
    with pytest.raises(
        CheckpointError, match="this looks like TVTSv2_H_14, and the model is TVTSv2_Demo"
    ) as error:
        load_checkpoint(demo(), tmp_path / "h.safetensors")
    assert "--arch TVTSv2_H_14" in str(error.value) and 'create_model("TVTSv2_H_14")' in str(error.value)
    assert guess_variant(state).name == "TVTSv2_Demo"
    assert guess_variant({}) is None


def test_missing_left_over_and_misshapen_tensors_are_listed_and_nothing_is_loaded(tmp_path, state):
    faulty = {name: value + 1 for name, value in state.items()}
    del faulty["text_projection"], faulty["pred_model.head.bias"]
    faulty["extra"] = torch.zeros(1)
    faulty["video_model.temporal_embedding"] = torch.zeros(8, 64)
    torch.save(faulty, tmp_path / "m.pth")
    model = demo()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(model, tmp_path / "m.pth")
    message = str(error.value)
    assert "missing in the file: text_projection" in message
    assert "missing in the file: pred_model.head.bias" in message
    assert "left over in the file: extra" in message
    assert "video_model.temporal_embedding (file [8, 64], model [12, 64])" in message
    assert_filled(model, before)


def test_unreadable_files_are_refused_by_name(tmp_path, state):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_checkpoint(demo(), tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    (tmp_path / "text.safetensors").write_text("no")
    for name in ("text.pth", "empty.pth", "cut.pth", "text.safetensors"):
        with pytest.raises(CheckpointError, match=name):
            read_state_dict(tmp_path / name)
    for content in ([1, 2], {"epoch": 1}, torch.zeros(3)):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=r"other\.pth"):
            read_state_dict(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "text", ["hello\n", "<html>not found</html>", "a list\nof.mp4\n", "0.1,0.2\n", "(lp0\n."]
)
def test_a_text_is_no_weights_file(tmp_path, text):
    (tmp_path / "m.pth").write_text(text)
    with pytest.raises(
        CheckpointError, match=r"m\.pth is no weights file, it begins with .*save_pretrained$"
    ):
        read_state_dict(tmp_path / "m.pth")


def test_a_pickle_of_nonsense_is_refused(tmp_path):
    (tmp_path / "m.pth").write_bytes(b"\x80\x02e.")  # takes from an empty stack
    with pytest.raises(CheckpointError, match=r"m\.pth is not a readable weights file"):
        read_state_dict(tmp_path / "m.pth")


def test_save_pretrained_and_from_pretrained(tmp_path):
    model = create_model("TVTSv2_Demo", num_frames=8, freeze_text_embeddings=True, sort_tokens="patches_raw")
    model.save_pretrained(tmp_path / "hub")
    assert {"model.safetensors", "config.json"} <= {path.name for path in (tmp_path / "hub").iterdir()}
    again = TVTSv2.from_pretrained(tmp_path / "hub")
    assert again.variant == model.variant
    assert not again.text_token_embedding.weight.requires_grad
    assert_filled(again, model.state_dict())

    other = create_model("TVTSv2_Demo", num_frames=8)
    load_checkpoint(other, tmp_path / "hub")
    assert_filled(other, model.state_dict())


def test_what_save_pretrained_writes_is_for_others_too(tmp_path):
    model = create_model("TVTSv2_Demo", num_frames=8, sort_head=False)
    before = os.umask(0o022)
    try:
        model.save_pretrained(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("model.safetensors", "config.json", "README.md"), 0o644)
    card = (tmp_path / "README.md").read_text()
    assert "# TVTSv2_Demo" in card and "up to\n8 frames of" in card and "sorts transcripts" not in card
    assert "TVTSv2.from_pretrained" in card and "library_name: tvtsv2" in card
    assert "More Information" not in card and "{{" not in card
    assert "sorts transcripts" in demo().generate_model_card().text


def test_from_pretrained_is_strict(tmp_path, state):
    demo().save_pretrained(tmp_path)
    save_file(without_sort_head(state), tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="pred_model"):
        TVTSv2.from_pretrained(tmp_path)


@pytest.mark.parametrize("sort_head", [False, True])
def test_convert(tmp_path, state, sort_head):
    content = state if sort_head else without_sort_head(state)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in content.items()}}, tmp_path / "m.pth"
    )
    message = convert(tmp_path / "m.pth", tmp_path / "hub")
    assert "TVTSv2_Demo written to" in message
    model = TVTSv2.from_pretrained(tmp_path / "hub")
    assert (model.pred_model is not None) == sort_head
    assert_filled(model, state)


def test_convert_refuses_what_is_no_tvtsv2(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="none of the TVTSv2 models"):
        convert(tmp_path / "m.pth", tmp_path / "hub")


def test_convert_replaces_a_model_only_when_told_to(tmp_path, state, capsys):
    torch.save(state, tmp_path / "m.pth")
    output = tmp_path / "hub" / "model.safetensors"
    output.parent.mkdir()
    output.write_text("mine")
    command = [str(tmp_path / "m.pth"), str(output.parent)]
    assert convert_command(command) == 2
    assert output.read_text() == "mine" and f"{output} would be replaced" in capsys.readouterr().err
    assert convert_command([*command, "--overwrite"]) == 0
    assert_filled(TVTSv2.from_pretrained(output.parent), state)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no weights file"), ("hello", "is no weights file, it begins with b'hello'")],
)
def test_the_command_says_in_a_line_what_it_cannot_convert(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "m.pth").write_text(content)
    assert convert_command([str(tmp_path / "m.pth"), str(tmp_path / "hub")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said and str(tmp_path / "m.pth") in said


def test_weights_whose_sum_overflows_are_finite_and_infinity_is_found(tmp_path, state):
    large = torch.full_like(state["video_model.proj"], 3e38)
    save_file(state | {"video_model.proj": large}, tmp_path / "large.safetensors")
    model = create_model("TVTSv2_Demo")
    load_checkpoint(model, tmp_path / "large.safetensors")
    assert torch.equal(model.video_model.proj, large)
    large[0, 0], large[1, 1] = float("inf"), -float("inf")
    save_file(state | {"video_model.proj": large}, tmp_path / "large.safetensors")
    with pytest.raises(CheckpointError, match=r"video_model\.proj holds NaN or infinity \(2 of"):
        load_checkpoint(model, tmp_path / "large.safetensors")


def test_a_model_made_without_values_is_that_of_its_file(tmp_path, state):
    save_file(state, tmp_path / "demo.safetensors")
    model = create_model("TVTSv2_Demo")
    before = torch.get_rng_state()
    with WithoutValues():
        other = create_model("TVTSv2_Demo")
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    for loaded in (model, other):
        load_checkpoint(loaded, tmp_path / "demo.safetensors")
    one, two = ({**m.state_dict(), **dict(m.named_buffers())} for m in (model, other))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
