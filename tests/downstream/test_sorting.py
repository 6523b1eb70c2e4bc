"""Sorting transcripts: against the model's own forward, over several processes, and what cannot be."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from data_loader.build import build_val_loader
from data_loader.demo import generate
from downstream import sorting
from model.build import build_model
from tests.extras import extra
from utils.config import REPOSITORY, load_config
from utils.schema import PretrainingConfig

from .launch import torchrun


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> list[str]:
    """The demo's world, a fortieth of it, as overrides of its config."""
    root = tmp_path_factory.mktemp("world")
    generate(root, seed=3, scale=0.025)
    entries = json.dumps([{"type": "yttemporal", "root": str(root / "YTTemporal")}])
    return [
        f"data.meta={root / 'meta_data'}",
        f"data.val={entries}",
        "data.num_workers=0",
        "data.batch_size=2",
    ]


def arguments(settings, checkpoint, *more: object) -> list[str]:
    given = ["--config", "configs/demo.json", "--checkpoint", checkpoint, "--device", "cpu", *more]
    return [str(x) for x in given] + [part for setting in settings for part in ("--set", setting)]


@torch.no_grad()
def plain_share(settings, checkpoint) -> tuple[float, int]:
    """Transcripts put in order with their own video, in percent, and how many there are."""
    config = load_config(PretrainingConfig, "configs/demo.json", settings)
    model = build_model(config.arch, starting_weights=False).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    loader = build_val_loader(config.data.val[0], config, model, sorting.join_processes("cpu"))
    logits = torch.cat([model(batch).order_logits for batch in loader if len(batch["index"]) > 1])
    right = (logits.argmax(-1) == torch.arange(logits.shape[1])).all(1)
    return 100 * right.double().mean().item(), len(right)


@pytest.mark.heavy
def test_one_process_and_two_find_what_the_model_says(settings, checkpoint, sharded, tmp_path, capsys):
    given = arguments(settings, checkpoint, "--output", tmp_path / "two.json")
    with torchrun("downstream/sorting.py", given, cwd=REPOSITORY) as ended:
        share, number = plain_share(settings, checkpoint)
        assert number >= 4 and number % 4 == 0
        for weights in (checkpoint, sharded):
            assert sorting.main(arguments(settings, weights, "--output", tmp_path / "one.json")) == 0
            one = json.loads((tmp_path / "one.json").read_text())
            assert one["transcripts"] == number
            assert one["wholly_in_order"]["own video"] == pytest.approx(share)
            assert capsys.readouterr().out.splitlines()[1].split() == ["own", "video", f"{share:.1f}"]
        done = ended()
    assert done.stdout.count("own video") == 1
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["transcripts"] == number
    assert two["wholly_in_order"]["own video"] == pytest.approx(share)


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "csv", "files": "spans_val.tsv", "num_clips": 4},
        {"type": "narrated", "files": "narrated_val.tsv"},
    ],
    ids=["spans", "subtitles"],
)
def test_captioned_spans_and_subtitles_are_sorted(settings, checkpoint, tmp_path, entry):
    if entry["type"] == "narrated":
        extra("webvtt")
    root = Path(json.loads(settings[1].removeprefix("data.val="))[0]["root"]) / "videos"
    settings = [*settings, f"data.val={json.dumps([{**entry, 'root': str(root)}])}"]
    share, number = plain_share(settings, checkpoint)
    assert sorting.main(arguments(settings, checkpoint, "--output", tmp_path / "one.json")) == 0
    result = json.loads((tmp_path / "one.json").read_text())
    assert result["transcripts"] == number >= 4 and not result["failed_files"]
    assert result["wholly_in_order"]["own video"] == pytest.approx(share)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("data.batch_size=1", "see data.batch_size"), ("data.val=[]", "no set of type yttemporal")],
)
def test_mistakes_are_explained(settings, checkpoint, tmp_path, capsys, setting, expected):
    with pytest.raises(SystemExit) as stop:
        sorting.main(arguments([*settings, setting], checkpoint, "--output", tmp_path / "x.json"))
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


def test_shares_are_shown_before_what_cannot_be_written(settings, checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        sorting.main(arguments(settings, checkpoint, "--output", tmp_path))
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "own video" in said.out and f"error: could not write {tmp_path}: Is a directory" in said.err


def test_a_file_without_a_sort_head_is_refused(settings, checkpoint, tmp_path, capsys):
    """It would be filled at random, and what it sorts be taken for the model's."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    released = {name: value for name, value in state.items() if not name.startswith("pred_model.")}
    torch.save(released, tmp_path / "released.pth")
    with pytest.raises(SystemExit) as stop:
        sorting.main(arguments(settings, tmp_path / "released.pth", "--output", tmp_path / "x.json"))
    assert stop.value.code == 2
    assert "released.pth holds no sort head" in capsys.readouterr().err


def test_unreadable_videos_are_named(settings, checkpoint, tmp_path, capsys):
    meta = Path(settings[0].removeprefix("data.meta="))
    entry = json.loads(settings[1].removeprefix("data.val="))[0]
    root = Path(shutil.copytree(entry["root"], tmp_path / "copy"))
    broken = root / "videos" / (meta / "yttemporal_val.csv").read_text().split()[1]
    broken.write_bytes(b"")
    copied = f"data.val={json.dumps([entry | {'root': str(root)}])}"
    assert sorting.main(arguments([*settings, copied], checkpoint, "--output", tmp_path / "x.json")) == 0
    assert json.loads((tmp_path / "x.json").read_text())["failed_files"][0]["path"] == str(broken)
    said = capsys.readouterr().err
    assert f"warning: left out 1 video that cannot be read:\n  {broken}: " in said
    assert said.count(str(broken)) == 1
