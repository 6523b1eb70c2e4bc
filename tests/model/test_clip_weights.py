"""Starting weights: a TVTSv2 that has seen no video yet must be the CLIP it was started from."""

import hashlib

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import CLIP.weights
import OpenCLIP.weights
from model import create_model, load_checkpoint, load_clip_weights
from model.checkpoint import CheckpointError
from tests.model.memory import give_back
from tests.model.test_text_encoder import random_ids

OPEN_CLIP = {
    "TVTSv2_B_32": "ViT-B-32-quickgelu",
    "TVTSv2_B_16": "ViT-B-16-quickgelu",
    "TVTSv2_H_14": "ViT-H-14",
}


def save_without_checksums(state, path):
    """torch.save; the sums of 4 GB take longer than the rest of it, and nobody reads them."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    torch.save(state, path)
    torch.serialization.set_crc32_options(before)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["TVTSv2_B_32", "TVTSv2_B_16", "TVTSv2_H_14"])
def test_one_frame_without_time_is_clip(tmp_path, name):
    torch.manual_seed(0)
    clip = open_clip.create_model(OPEN_CLIP[name]).eval()
    for tensor in clip.state_dict().values():  # biases and norms too: open_clip starts them at 0 and 1
        if tensor.ndim == 1:
            tensor.add_(0.1 * torch.randn_like(tensor))
    save_without_checksums(clip.state_dict(), tmp_path / "clip.bin")

    image, ids = torch.randn(2, 3, 224, 224), random_ids((9, 77, 2))
    with torch.no_grad():
        want_image, want_text = clip.encode_image(image), clip.encode_text(ids)
    del clip
    give_back()

    model = create_model(name).eval()
    report = load_clip_weights(model, tmp_path / "clip.bin")
    (tmp_path / "clip.bin").unlink()  # up to 4 GB
    layers = model.variant.video_layers
    assert sum(".timeattn." in fresh for fresh in report.fresh) == 4 * layers
    assert sum(".ln_3." in fresh for fresh in report.fresh) == 2 * layers
    others = [fresh for fresh in report.fresh if ".timeattn." not in fresh and ".ln_3." not in fresh]
    assert "video_model.temporal_embedding" in others
    assert all(fresh.startswith(("pred_model.", "video_model.temporal_embedding")) for fresh in others)
    assert report.ignored == ["logit_scale"]

    with torch.no_grad():
        model.video_model.temporal_embedding.zero_()
        got_image, got_text = model.encode_video(image)[0], model.encode_text(ids)
    for got, want in ((got_image, want_image), (got_text, want_text)):
        assert (got - want).abs().max() <= 2e-5 * want.abs().max()
    del model
    give_back()


SMALL = {
    "video_width": 32,
    "video_layers": 2,
    "video_heads": 2,
    "text_width": 16,
    "text_layers": 2,
    "text_heads": 2,
}
SMALL |= {"embed_dim": 16, "sort_heads": 2, "vocab_size": 100, "trained_text_blocks": 1}


def small_model(name="TVTSv2_B_32"):
    return create_model(name, **SMALL)


def small_clip(name="TVTSv2_B_32"):
    """A state_dict in CLIP's layout that fits the small model."""
    torch.manual_seed(3)
    clip = {"logit_scale": torch.tensor(4.6)}
    for key, value in small_model(name).state_dict().items():
        if key.startswith("pred_model.") or any(
            new in key for new in ("timeattn", "ln_3", "temporal_embedding")
        ):
            continue
        if key.startswith("video_model."):
            key = key.replace("video_model.", "visual.").replace("attn.qkv.", "attn.in_proj_")
            key = key.replace("attn.proj.", "attn.out_proj.")
        elif key.startswith("text_model."):
            key = key.replace("text_model.", "transformer.")
        elif key != "text_projection":
            key = key.removeprefix("text_")
        clip[key] = torch.randn(value.shape)
    return clip


def assert_started_from(model, clip):
    state = model.state_dict()
    blocks, their_blocks = "video_model.transformer.resblocks", "visual.transformer.resblocks"
    pairs = {
        "video_model.conv1.weight": "visual.conv1.weight",
        f"{blocks}.1.attn.qkv.bias": f"{their_blocks}.1.attn.in_proj_bias",
        f"{blocks}.1.attn.proj.weight": f"{their_blocks}.1.attn.out_proj.weight",
        "text_model.resblocks.0.attn.in_proj_weight": "transformer.resblocks.0.attn.in_proj_weight",
        "text_token_embedding.weight": "token_embedding.weight",
        "text_positional_embedding": "positional_embedding",
        "text_ln_final.bias": "ln_final.bias",
        "text_projection": "text_projection",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(state[ours], clip[theirs]), ours


def torchscript_archive(clip, path):
    """As OpenAI released CLIP: scripted modules in half precision, sizes beside the weights."""

    class Node(nn.Module):
        def forward(self, x):
            return x

    root = Node()
    for name, value in clip.items():
        *parents, leaf = name.split(".")
        node = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, Node())
            node = getattr(node, parent)
        node.register_parameter(leaf, nn.Parameter(value.half()))
    for name, value in {"input_resolution": 224, "context_length": 77, "vocab_size": 100}.items():
        root.register_buffer(name, torch.tensor(value))
    torch.jit.save(torch.jit.script(root), path)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # saving TorchScript is deprecated
def test_openai_torchscript_archive_found_in_its_folder(tmp_path, monkeypatch):
    clip = small_clip()
    torchscript_archive(clip, tmp_path / "ViT-B-32.pt")
    monkeypatch.setattr(CLIP.weights, "FOLDER", tmp_path)
    model = small_model()
    report = load_clip_weights(model)
    assert report.path == str(tmp_path / "ViT-B-32.pt")
    assert set(report.ignored) == {"logit_scale", "input_resolution", "context_length", "vocab_size"}
    assert_started_from(model, {name: value.half().float() for name, value in clip.items()})


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_file_that_openai_did_not_publish_is_named_in_a_warning(tmp_path, monkeypatch, caplog):
    path = tmp_path / "ViT-B-32.pt"
    torchscript_archive(small_clip(), path)
    load_clip_weights(small_model(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (warning,) = [record.getMessage() for record in caplog.records]
    published = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    assert warning == (
        f"{path} is not the ViT-B-32 that OpenAI published: its SHA-256 is {digest}, not {published}"
    )
    caplog.clear()
    monkeypatch.setitem(CLIP.weights.SOURCES, "ViT-B-32.pt", f"https://nowhere/{digest}/ViT-B-32.pt")
    load_clip_weights(small_model(), path)
    assert not caplog.records


@pytest.mark.parametrize("file", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"])
@pytest.mark.parametrize(
    "place", [".", "models--laion--CLIP-ViT-H-14-laion2B-s32B-b79K/snapshots/1c2b8495b28150"]
)
def test_openclip_files_found_directly_or_in_the_hub_cache(tmp_path, monkeypatch, file, place):
    clip = small_clip("TVTSv2_H_14")
    path = tmp_path / place / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.endswith(".bin"):
        torch.save(clip, path)
    else:
        save_file(clip, path)
    monkeypatch.setattr(OpenCLIP.weights, "FOLDER", tmp_path)
    model = small_model("TVTSv2_H_14")
    assert load_clip_weights(model).path == str(path)
    assert_started_from(model, clip)
    assert load_clip_weights(model, tmp_path).path == str(path)


def test_plain_state_dict_of_openai_by_path(tmp_path):
    clip = small_clip()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in clip.items()}}, tmp_path / "clip.pt"
    )
    model = small_model()
    load_clip_weights(model, tmp_path / "clip.pt")
    assert_started_from(model, clip)


def test_everything_is_needed_and_everything_is_used(tmp_path):
    clip = small_clip()
    del clip["visual.proj"], clip["transformer.resblocks.0.attn.in_proj_bias"]
    clip["visual.head.weight"] = torch.zeros(2)
    clip["text_projection"] = torch.zeros(16, 8)
    torch.save(clip, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError) as error:
        load_clip_weights(small_model(), tmp_path / "clip.pt")
    for line in (
        "missing in the file: video_model.proj",
        "missing in the file: text_model.resblocks.*.attn.in_proj_bias",
        "left over in the file: video_model.head.weight",
        "text_projection (file [16, 8], model [16, 16])",
    ):
        assert line in str(error.value)


def test_missing_files_are_named_with_where_to_get_them(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no ViT-B-32\.pt in .*: python -m model\.download ViT-B-32 fetches it"
    ):
        load_clip_weights(small_model(), tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"open_clip_pytorch_model\.bin.*python -m model\.download ViT-H-14 fetches"
    ):
        load_clip_weights(small_model("TVTSv2_H_14"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt.*python -m model\.download fetches"):
        load_clip_weights(small_model(), tmp_path / "nowhere.pt")


def test_the_two_kinds_of_file_are_told_apart(tmp_path):
    model = small_model()
    torch.save(model.state_dict(), tmp_path / "tvtsv2.pth")
    torch.save(small_clip(), tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="load_checkpoint"):
        load_clip_weights(model, tmp_path / "tvtsv2.pth")
    with pytest.raises(CheckpointError, match="load_clip_weights"):
        load_checkpoint(model, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match="no CLIP to start from"):
        load_clip_weights(create_model("TVTSv2_Demo"))
