"""The linear probe: the optimum it finds, what it holds out, and a whole run."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from data_loader.sampling import sample_frames
from data_loader.transforms import clip_transform, normalize
from data_loader.video import read_frames
from downstream import linear_probe
from downstream.linear_probe import choose_held_out, fit, probe
from utils.errors import RunError

from . import layouts
from .launch import probe_arguments


def blobs(number: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 3
    centres = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    return centres[labels] + spread * torch.randn(number, 4, generator=generator), labels


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_fit_finds_the_optimum(penalty):
    """The loss is convex: it is smallest where its gradient vanishes."""
    x, labels = blobs(60, seed=0)
    weights = fit(x, labels, 3, penalty).requires_grad_()
    loss = cross_entropy(x @ weights[:-1] + weights[-1], labels) + penalty / 2 * weights[:-1].square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.abs().max() < 1e-4
    assert loss < cross_entropy(torch.zeros(60, 3), labels)


def test_probe_of_separable_features():
    """Features far from standardised: the weights are to fit them as they are."""
    scale, shift = torch.tensor([1.0, 100.0, 0.01, 1.0]), torch.tensor([5.0, 0.0, -3.0, 0.0])
    train, test = blobs(90, seed=0, spread=0.3), blobs(30, seed=1, spread=0.3)
    train, test = ((x * scale + shift, labels) for x, labels in (train, test))
    held_out = torch.arange(90) % 10 == 0
    logits, weights, details = probe(train, test[0], 3, held_out)
    assert (logits.argmax(dim=1) == test[1]).all()
    assert ((test[0] @ weights[:-1] + weights[-1]).argmax(dim=1) == test[1]).all()
    assert len(details["held_out_top1"]) == len(linear_probe.PENALTIES)


def test_clips_of_a_source_are_held_out_together():
    names = [f"v_Archery_g{g:02d}_c{c:02d}.avi" for g in range(10) for c in range(4)]
    mask = choose_held_out([*names, *(f"x{i}.mp4" for i in range(20))], [0] * 40 + [1] * 20)
    for g in range(10):
        assert len(set(mask[4 * g : 4 * g + 4].tolist())) == 1
    assert mask[:40].sum() == 4 and mask[40:].sum() == 2


def test_a_class_of_one_source_is_trained_on():
    mask = choose_held_out(["a_1.avi", "a_2.avi", "b_1.avi", "c_1.avi"], [0, 0, 1, 1])
    assert mask.tolist()[:2] == [False, False] and mask.sum() == 1
    with pytest.raises(RunError, match="two sources"):
        choose_held_out(["a_1.avi", "a_2.avi"], [0, 0])


def run(tmp_path, checkpoint, *more: str) -> int:
    return linear_probe.main(probe_arguments(tmp_path, checkpoint, *more))


def test_a_whole_run(checkpoint, tmp_path, capsys):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    assert run(tmp_path, checkpoint) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["task"] == "linear_probe"
    assert results["counts"] == {"training videos": 12, "test videos": 6, "classes": 2}
    assert results["metrics"]["accuracy"]["plain"]["top1"] == 100.0
    assert "held-out" in capsys.readouterr().out
    assert load_file(tmp_path / "out/probe.safetensors")["weight"].shape == (2, 96)


def test_several_views_of_a_test_video_are_averaged(checkpoint, model, tmp_path):
    """The logits of each view by hand, from the classifier that the run has saved."""
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    for seed, path in enumerate(sorted((tmp_path / "data").rglob("test_*.avi"))):
        layouts.write_video(path, seed=seed, frames=40)
    assert run(tmp_path, checkpoint, "-s", "1") == 0
    queries = json.loads((tmp_path / "out/results.json").read_text())["queries"]
    saved = load_file(tmp_path / "out/probe.safetensors")
    for query in queries:
        logits = []
        for shift in (0, 1, 2):  # 40 frames in 12 parts and one more give shifts below three
            frames, _, _ = read_frames(
                tmp_path / "data" / query["video"],
                lambda video, shift=shift: sample_frames(12, len(video), shift=shift),
            )
            clip = normalize(clip_transform("test", model.image_size)(frames))
            with torch.no_grad():
                logits.append(model.encode_video(clip[None])[0][0] @ saved["weight"].T + saved["bias"])
        mean = torch.stack(logits).mean(dim=0)
        assert query["predicted"] == layouts.CLASSES[int(mean.argmax())]
        label = layouts.CLASSES.index(query["class"])
        assert query["rank"] == 1 + int((mean > mean[label]).sum())


def test_an_unreadable_training_video_fails_the_run(checkpoint, tmp_path, capsys):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    next((tmp_path / "data").rglob("train_source1_0.avi")).write_bytes(b"")
    assert run(tmp_path, checkpoint) == 1
    assert "1 of 18 videos cannot be read" in capsys.readouterr().err
    assert run(tmp_path, checkpoint, "--allow-missing") == 0
    assert "WITHOUT 1 video " in capsys.readouterr().out


def test_retrieval_data_have_no_labels(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit):
        linear_probe.main(["--config", "downstream/configs/msrvtt.json"])
    assert "this command's is recognition" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["demo_ssv2", "didemo"])
def test_what_has_nothing_to_train_on_is_neither_offered_nor_taken(dataset, capsys):
    with pytest.raises(SystemExit):
        linear_probe.main(["--help"])
    assert dataset not in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        linear_probe.main(["--dataset", dataset])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert dataset in said and "of training, too" in said and "hmdb51, k400, ucf101, demo" in said


def test_a_failed_start_leaves_no_folder(checkpoint, tmp_path, capsys):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    next((tmp_path / "meta").rglob("split_1_train_list.tsv")).unlink()
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, checkpoint, "--report", str(tmp_path / "pages"))
    assert stop.value.code == 2
    assert "split_1_train_list.tsv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "pages").exists()
