"""Fine-tuning by the trainer of pre-training: a class head, an average of the weights, rates by layers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

import test as test_entry
import train
from data_loader.held_out import held_out_mask
from downstream import feature_extraction
from model import create_model, is_new_parameter, load_checkpoint
from model.checkpoint import CheckpointError
from model.class_head import ClassHead
from tests.trainer.runs import rows
from trainer.checkpoint import list_checkpoints, read_checkpoint, save_atomically
from trainer.ema import WeightAverage
from trainer.engine import Precision, build_engine
from trainer.optim import build_optimizer, build_scheduler, parameter_groups
from trainer.step import TrainStep
from utils.processes import DistContext
from utils.schema import LossConfig, OptimizerConfig, PretrainingConfig, SchedulerConfig, TrainerConfig

OFF = {"loss__mixup": 0.0, "loss__label_smoothing": 0.0}
PROMPTS = ["something {}", "it {}"]
NAMES = ["stays", "flashes", "slides", "grows"]


@pytest.fixture(scope="module")
def start_file(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "start.pth"
    save_atomically({"state_dict": create_model("TVTSv2_Demo").state_dict()}, path)
    return path


@pytest.fixture
def settings(world, start_file) -> dict:
    """Overrides for the motions of the demo's HMDB-51: eight training videos, half of them held out."""
    entry = [{"type": "hmdb51", "root": str(world / "hmdb51")}]
    return {
        "arch": {
            "type": "TVTSv2_Demo",
            "start_from": str(start_file),
            "class_head": True,
            "mask_ratio": 0.0,
            "compile": False,
        },
        "data__train": entry,
        "data__val": entry,
        "data__held_out": 0.5,
        "data__batch_size": 2,
        "loss__mixup": 0.8,
        "loss__label_smoothing": 0.1,
        "optimizer__layer_decay": 0.7,
        "trainer__ema_decay": 0.9,
        "trainer__monitor": "max hmdb51_top1",
        "trainer__keep_last": None,
    }


@pytest.mark.heavy
def test_a_run_killed_goes_on_to_the_bit_and_its_best_is_evaluated_and_embeds(
    world, arguments, settings, tmp_path, capsys
):
    assert train.main(arguments(name="whole", **settings)) == 0
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / "checkpoint-epoch2.pth").unlink()
    for left in cut.glob("model_best.*"):  # as after the first epoch
        left.unlink()
    assert train.main(arguments("--resume", "auto", name="cut", **settings)) == 0
    of_steps = [[(row["step"], row["loss"]) for row in rows(run, "step")] for run in (whole, cut)]
    assert of_steps[0] == of_steps[1] and len(of_steps[0]) == 4
    first, second = (read_checkpoint(folder / "checkpoint-epoch2.pth") for folder in (whole, cut))
    for part in ("state_dict", "trained"):
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
    assert not torch.equal(first["state_dict"]["head.weight"], first["trained"]["head.weight"])
    assert rows(cut, "validation")[-1] == rows(whole, "validation")[-1]
    steps = rows(whole, "step")
    assert all(row["loss"] == row["classification"] for row in steps) and "lr_head" in steps[0]

    best, given = whole / "model_best.pth", json.loads((whole / "model_best.json").read_text())
    assert given["monitor"] == "max hmdb51_top1"
    common = ["--arch", "TVTSv2_Demo", "--checkpoint", str(best), "--device", "cpu", "--num-workers", "0"]
    of_motion = ["--dataset", "demo_hmdb51", "--set", f"data.root={world / 'hmdb51'}"]
    of_motion += ["--set", f"meta={world / 'meta_data'}", "--output", str(tmp_path / "out")]
    for views in ([], ["--segments", "2"]):
        assert test_entry.main([*of_motion, *common, *views]) == 0
        found = json.loads((tmp_path / "out" / "results.json").read_text())
        assert list(found["metrics"]) == [
            *("accuracy", "mean of classes", "accuracy, head", "mean of classes, head"),
        ]
    assert (
        feature_extraction.main([str(world / "hmdb51/stays"), *common, "--output", str(tmp_path / "f.npz")])
        == 0
    )
    said = capsys.readouterr()
    assert "other classes" not in said.err
    assert test_entry.main([*of_motion, *common, "--set", f"class_names={write_names(tmp_path)}"]) == 0
    assert "for other classes than the data's, as 'blinks' shows" in capsys.readouterr().err


def test_a_head_that_begins_at_texts_is_zero_shot_and_the_start_is_a_candidate(
    world, arguments, settings, tmp_path, start_file
):
    """With rates of 0 every epoch is as good as the start; of equals the last is kept."""
    settings["arch"] |= {"head_from_texts": PROMPTS}
    rates = {"optimizer__new_lr": 0.0, "optimizer__clip_lr": 0.0, "optimizer__head_lr": 0.0}
    at_start = {"trainer__validate_at_start": True, "trainer__epochs": 1, "name": "texts"}
    assert train.main(arguments("--resume", "auto", **settings, **rates, **at_start)) == 0
    folder = tmp_path / "texts"
    best = [
        line.split()[4] for line in (folder / "log.txt").read_text().splitlines() if "best so far" in line
    ]
    assert best == ["checkpoint-epoch0.pth,", "checkpoint-epoch1.pth,"]
    before, after = rows(folder, "validation")
    assert before["step"] == 0 and before["hmdb51_top1"] == after["hmdb51_top1"]
    written, start = (read_checkpoint(folder / "checkpoint-epoch0.pth")["state_dict"], torch.load(start_file))
    assert all(torch.equal(value, written[name]) for name, value in start["state_dict"].items())
    given = ["--dataset", "demo_hmdb51", "--arch", "TVTSv2_Demo", "--device", "cpu", "--num-workers", "0"]
    given += ["--checkpoint", str(folder / "model_best.pth"), "--output", str(tmp_path / "out")]
    data = (f"data.root={world / 'hmdb51'}", f"meta={world / 'meta_data'}", f"prompts={json.dumps(PROMPTS)}")
    assert test_entry.main([*given, *(part for each in data for part in ("--set", each))]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]
    assert found["accuracy, head"] == found["accuracy"]
    (folder / "checkpoint-epoch1.pth").unlink()  # as if killed after the start was written
    assert train.main(arguments("--resume", "auto", **settings, **rates, **at_start)) == 0
    assert [row["step"] for row in rows(folder, "validation")] == [0, after["step"]]


def test_the_head_of_texts_has_cosines_over_the_temperature():
    g = torch.Generator().manual_seed(0)
    texts, embeds = torch.randn(3, 4, 16, generator=g), 5 + torch.randn(7, 16, generator=g)
    head = ClassHead(16, NAMES)
    head.begin_at(texts, temperature=0.05)
    classes = normalize(texts, dim=-1).mean(dim=0)
    expected = 20 * cosine_similarity(embeds[:, None], classes[None], dim=-1)
    torch.testing.assert_close(head(embeds), expected, rtol=1e-4, atol=1e-4)


def test_texts_of_numbers_are_refused(arguments, settings, tmp_path, world, capsys):
    videos = sorted((world / "hmdb51").glob("*/train*.mp4"))[:8]
    lines = ["path,label\n", *(f"{video},{i % 2}\n" for i, video in enumerate(videos))]
    (tmp_path / "list.csv").write_text("".join(lines))
    entry = [{"type": "labels", "root": "/", "files": str(tmp_path / "list.csv")}]
    settings |= {"data__train": entry, "data__val": entry, "trainer__monitor": "max labels_top1"}
    settings["arch"]["head_from_texts"] = "clip-kinetics"
    with pytest.raises(SystemExit):
        train.main(arguments(name="numbers", **settings))
    assert "arch.head_from_texts: the classes are numbers, 0 to 1" in capsys.readouterr().err


def write_names(folder: Path) -> Path:
    (folder / "names.txt").write_text("rests\nblinks\nglides\nswells\n")
    return folder / "names.txt"


def test_what_does_not_go_together_is_said(arguments, settings, world, capsys):
    webvid = [{"type": "webvid", "root": str(world / "WebVid")}]
    for changed, said in (
        ({"trainer__engine": "fsdp"}, "trainer.ema_decay needs trainer.engine ddp"),
        ({"data__val": webvid}, "data.val.0, of type webvid, must be a set of data.train"),
        (
            {"data__train": webvid, "data__val": webvid},
            "data.train, of type webvid: arch.class_head needs videos",
        ),
        (
            {"data__held_out": 0.0, "data__val": webvid},
            "data.val, of type webvid: arch.class_head needs videos",
        ),
        ({"arch": {"type": "TVTSv2_Demo", "start_from": "random"}}, "set arch.class_head"),
        (
            {"arch": {"type": "TVTSv2_Demo", "head_from_texts": ["a {}"]}, **OFF},
            "arch.head_from_texts is of a",
        ),
        ({"trainer__monitor": "max hmdb51_t2v_R1"}, "no metric 'hmdb51_t2v_R1'"),
    ):
        with pytest.raises(SystemExit):
            train.main(arguments(name="refused", **{**settings, **changed}))
        assert said in capsys.readouterr().err


def test_retrieval_validates_on_what_it_does_not_train_on(world, start_file, arguments, tmp_path):
    entry = [{"type": "msrvtt", "root": str(world / "msrvtt")}]
    arch = {"type": "TVTSv2_Demo", "start_from": str(start_file), "compile": False}
    settings = {"arch": arch, "data__train": entry, "data__val": entry, "data__held_out": 0.4}
    assert (
        train.main(arguments(name="own", **settings, trainer__monitor="max msrvtt_t2v_R1", trainer__epochs=1))
        == 0
    )
    assert len(rows(tmp_path / "own", "step")) == 1  # three of five videos
    assert (tmp_path / "own" / "model_best.pth").exists()
    assert read_checkpoint(list_checkpoints(tmp_path / "own")[0])["trained"] is None


def test_nothing_of_one_source_is_on_both_sides():
    names = [f"{label}_g{group}_c{clip}.avi" for label in "ab" for group in range(10) for clip in range(3)]
    labels = [0] * 30 + [1] * 30
    mask = held_out_mask(names, labels, 0.2)
    held = {name.rpartition("_")[0] for name, out in zip(names, mask, strict=True) if out}
    kept = {name.rpartition("_")[0] for name, out in zip(names, mask, strict=True) if not out}
    assert not held & kept and len(held) == 4
    assert torch.equal(mask, held_out_mask(names, labels, 0.2))
    assert not held_out_mask(["a.mp4", "b.mp4"], [0, 1], 0.5).any()


def test_scenes_of_a_video_stay_together_and_a_large_source_is_not_held_out_for_a_small_share():
    scenes = [f"v{i}-Scene-{k:03d}.mp4" for i in range(10) for k in range(3)]
    mask = held_out_mask(scenes, [0] * 30, 0.2)
    held = {name.partition("-")[0] for name, out in zip(scenes, mask, strict=True) if out}
    assert mask.sum() == 6 and len(held) == 2
    spans = [f"long.mp4#t={k},{k + 1}" for k in range(90)] + [f"s{k}.mp4#t=0,1" for k in range(10)]
    for seed in range(5):
        mask = held_out_mask(spans, [0] * 100, 0.1, seed)
        assert mask.sum() == 10 and not mask[:90].any()
    for sizes, expected in (((9, 1), 1), ((5, 5), 5), ((1, 1, 1), 1)):
        names = [f"{source}_{clip}.mp4" for source, size in enumerate(sizes) for clip in range(size)]
        assert held_out_mask(names, [0] * len(names), 0.1).sum() == expected


def test_the_average_is_that_of_the_formula_and_gives_the_weights_back():
    model = create_model("TVTSv2_Demo", trained_text_blocks=1)
    average = WeightAverage(model, 0.5)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and not frozen & {*average.averaged()}
    expected = model.text_projection.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            model.text_projection.add_(step)
        average.update(step)
        decay = min(0.5, 1 - step ** (-2 / 3)) if step > 1 else 0.0  # rising, from the newest alone
        expected = decay * expected + (1 - decay) * model.text_projection.detach()
    torch.testing.assert_close(average.averaged()["text_projection"], expected)
    own = model.text_projection.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.text_projection.detach(), expected)
    assert torch.equal(model.text_projection.detach(), own)


@pytest.mark.heavy
def test_the_average_of_a_run_that_auto_has_begun_is_that_of_its_starting_weights(
    world, arguments, start_file, tmp_path
):
    entry = [{"type": "webvid", "root": str(world / "WebVid")}]
    settings = {"data__train": entry, "data__val": entry, "trainer__monitor": None, "trainer__max_steps": 1}
    settings |= {"arch": {"type": "TVTSv2_Demo", "start_from": str(start_file), "compile": False}, "seed": 5}
    settings |= {"trainer__validate_at_start": True}
    assert train.main(arguments(name="plain", **settings)) == 0
    assert train.main(arguments("--resume", "auto", name="auto", trainer__ema_decay=0.9, **settings)) == 0
    assert rows(tmp_path / "auto", "validation")[0] == rows(tmp_path / "plain", "validation")[0]

    settings |= {"trainer__max_steps": 2, "trainer__validate_at_start": False}
    shutil.copytree(tmp_path / "auto", tmp_path / "sliced")
    for name, engine in (("auto", "ddp"), ("sliced", "fsdp")):  # on, with the weights that trained
        assert train.main(arguments("--resume", "auto", name=name, trainer__engine=engine, **settings)) == 0
    losses = [rows(tmp_path / name, "step")[-1]["loss"] for name in ("auto", "sliced")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def step_of(loss: LossConfig, accumulate: int, batch: dict) -> tuple[float, torch.Tensor, torch.nn.Module]:
    torch.manual_seed(1)
    model = create_model("TVTSv2_Demo", class_names=NAMES)
    context = DistContext(0, 1, 0, torch.device("cpu"))
    precision = Precision("fp32", context.device)
    engine = build_engine("ddp", model, context, precision, compiled=False)
    config = PretrainingConfig(loss=loss, trainer=TrainerConfig(accumulate=accumulate))
    optimizer = build_optimizer(
        parameter_groups(model, is_new_parameter, OptimizerConfig()), OptimizerConfig()
    )
    scheduler = build_scheduler(optimizer, SchedulerConfig(milestones=[]), 1, 1)
    train_step = TrainStep(engine, optimizer, scheduler, precision.scaler(), precision, context, config)
    torch.manual_seed(2)
    losses, norm = train_step(batch)
    return losses["loss"].item(), norm, model


@pytest.fixture
def batch() -> dict:
    g = torch.Generator().manual_seed(0)
    return {
        "video": torch.randint(0, 256, (3, 4, 3, 64, 64), generator=g, dtype=torch.uint8),
        "valid_frames": torch.tensor([4, 2, 4]),
        "label": torch.tensor([0, 3, 1]),
    }


def test_the_loss_is_the_cross_entropy_in_however_many_parts(batch):
    torch.manual_seed(1)
    plain = create_model("TVTSv2_Demo", class_names=NAMES)
    logits = plain(batch).class_logits
    expected = cross_entropy(logits, batch["label"], label_smoothing=0.1).item()
    for parts in (1, 2):
        loss, norm, _ = step_of(LossConfig(label_smoothing=0.1), parts, batch)
        assert loss == pytest.approx(expected, rel=1e-5) and norm > 0


def test_mixup_of_equal_clips_changes_labels_alone_and_padding_stays_zero(batch):
    batch["video"] = batch["video"][:1].expand(3, -1, -1, -1, -1)
    batch["valid_frames"] = torch.tensor([2, 2, 2])
    torch.manual_seed(1)
    logits = create_model("TVTSv2_Demo", class_names=NAMES)(batch).class_logits
    torch.manual_seed(2)
    share = torch.distributions.Beta(torch.tensor(0.4), torch.tensor(0.4)).sample()
    expected = share * cross_entropy(logits, batch["label"]) + (1 - share) * cross_entropy(
        logits, batch["label"].flip(0)
    )
    loss, _, _ = step_of(LossConfig(mixup=0.4), 1, batch)
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_rates_fall_from_the_top_of_each_tower():
    model = create_model("TVTSv2_Demo", class_names=NAMES)
    settings = OptimizerConfig(clip_lr=1.0, new_lr=2.0, head_lr=3.0, layer_decay=0.5)
    groups = parameter_groups(model, is_new_parameter, settings)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    found = {name: rate[id(p)] for name, p in model.named_parameters()}
    assert found["head.weight"] == 3.0 and found["text_projection"] == found["video_model.proj"] == 1.0
    for block, expected in ((2, 0.5), (1, 0.25), (0, 0.125)):
        assert found[f"text_model.resblocks.{block}.ln_1.weight"] == expected
        assert found[f"video_model.transformer.resblocks.{block}.ln_1.weight"] == expected
        assert found[f"video_model.transformer.resblocks.{block}.ln_3.weight"] == 2 * expected
    assert found["video_model.conv1.weight"] == found["text_token_embedding.weight"] == 0.0625
    assert all(rate == 2.0 for name, rate in found.items() if name.startswith("pred_model."))
    assert len(rate) == sum(1 for _ in model.parameters())


def test_a_head_is_left_out_where_there_is_none_and_refused_where_classes_differ(tmp_path):
    path = tmp_path / "tuned.pth"
    tuned = create_model("TVTSv2_Demo", class_names=NAMES)
    save_atomically({"state_dict": tuned.state_dict()}, path)
    assert {*load_checkpoint(create_model("TVTSv2_Demo"), path).ignored} == {
        *("head.weight", "head.bias", "head.names"),
    }
    other = create_model("TVTSv2_Demo", class_names=NAMES[::-1])
    with pytest.raises(CheckpointError, match="for other classes than the data's"):
        load_checkpoint(other, path)
    load_checkpoint(same := create_model("TVTSv2_Demo", class_names=NAMES), path)
    assert same.head.class_names == NAMES and torch.equal(same.head.weight, tuned.head.weight)
    assert ClassHead(8, ["größer", 'a "b"']).class_names == ["größer", 'a "b"']
