"""CLIP of open_clip, and somebody's own encoder, in our protocols, against one video and text at a time."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import test as test_entry
from data_loader.sampling import linspace_frames
from data_loader.transforms import clip_transform
from data_loader.video import read_clip
from downstream import feature_extraction, linear_probe, retrieval, search
from downstream.commands import run_all
from downstream.embedding.encoder import Encoder, ModelName, load_encoder
from downstream.embedding.open_clip_encoder import published_form
from downstream.evaluation import Evaluator
from downstream.feature_files import load_features
from downstream.options import config_path
from utils.config import load_config
from utils.processes import setup
from utils.schema import EvaluationConfig

from .. import layouts
from ..test_commands import failing
from ..test_protocols import check_retrieval, embed_text, embed_video

NAME = "tiny-clip"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
FORM = {
    "mean": (0.5, 0.4, 0.3),
    "std": (0.3, 0.2, 0.25),
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


def random_clip(name: str, seed: int = 0, **options):
    torch.manual_seed(seed)
    clip = open_clip.create_model(name, load_weights=False, **options).eval()
    for tensor in clip.state_dict().values():  # biases and norms, too
        tensor.add_(0.05 * torch.randn_like(tensor))
    return clip


@pytest.fixture(scope="module", autouse=True)
def tiny_config(tmp_path_factory):
    """open_clip knows the tiny model from here on."""
    path = tmp_path_factory.mktemp("open_clip") / f"{NAME}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    wider = path.with_name("tiny-clip-wide.json")
    wider.write_text(json.dumps({**CONFIG, "embed_dim": 40}))
    open_clip.add_model_config(wider)


@pytest.fixture(scope="module")
def clip(tiny_config):
    return random_clip(NAME)


@pytest.fixture(scope="module")
def weights(clip, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("msrvtt")
    layouts.msrvtt(folder / "data", folder / "meta")
    layouts.write_video(folder / "data/videos/all/video4.mp4", seed=4, frames=5)  # fewer than a clip's
    return folder


def image_of(frame: np.ndarray) -> Image.Image:
    return Image.fromarray(frame.transpose(1, 2, 0))


@torch.no_grad()
def clip_video(clip, path: Path, preprocess=None, num_frames: int = 12, chosen=slice(None)) -> np.ndarray:
    """The baseline as papers describe it, with open_clip's own preprocessing."""
    preprocess = preprocess or image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    frames, _, _ = read_clip(path, num_frames)
    embeds = [clip.encode_image(preprocess(image_of(frame.numpy()))[None])[0] for frame in frames[chosen]]
    return torch.stack([embed / embed.norm() for embed in embeds]).mean(0).numpy()


@torch.no_grad()
def clip_text(clip, text: str) -> np.ndarray:
    return clip.encode_text(open_clip.get_tokenizer(NAME)([text]))[0].numpy()


def evaluate(data: Path, out: Path, *more: str, dataset: str = "msrvtt") -> list[str]:
    given = ["--dataset", dataset, "--set", f"data.root={data / 'data'}", "--set", f"meta={data / 'meta'}"]
    return [*given, "--output", str(out), "-d", "cpu", "--num-workers", "0", *more]


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def videos_of(data: Path) -> list[Path]:
    return sorted((data / "data/videos/all").glob("*.mp4"))


def test_clip_and_tvtsv2_side_by_side(data, model, checkpoint, clip, weights, tmp_path, capsys):
    """One short video is among them: padding must not count."""
    models = ["--model", f"TVTSv2_Demo:{checkpoint}", "--model", f"open_clip:{NAME}:{weights}"]
    assert test_entry.main(evaluate(data, tmp_path, *models)) == 0
    texts = layouts.QUERIES[:5]
    of_clip = results(tmp_path / "open_clip_tiny-clip")
    videos = [clip_video(clip, path) for path in videos_of(data)]
    check_retrieval(of_clip, videos, [clip_text(clip, text) for text in texts], [0, 1, 2, 3, 4])
    of_tvts = results(tmp_path / "TVTSv2_Demo")
    videos = [embed_video(model, path) for path in videos_of(data)]
    check_retrieval(of_tvts, videos, [embed_text(model, text) for text in texts], [0, 1, 2, 3, 4])
    assert of_clip["arch"] == f"open_clip:{NAME}" and of_clip["checkpoint"]["path"] == str(weights)

    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("msrvtt · retrieval · text to video")
    table = {line.split("  ")[0]: line.split()[1:] for line in lines[begin + 2 : begin + 6] if line}
    for name, found in (("TVTSv2_Demo", of_tvts), (f"open_clip:{NAME}", of_clip)):
        r1 = found["metrics"]["text to video"]["plain"]["R1"]
        assert table[name][0] == f"{r1:.1f}"


def test_two_checkpoints_of_a_model_are_told_apart_by_their_hash(data, checkpoint, weights, tmp_path, capsys):
    other = tmp_path / "other.pth"
    torch.save(random_clip(NAME, seed=1).state_dict(), other)
    models = ["--model", f"open_clip:{NAME}:{weights}", "--model", f"open_clip:{NAME}:{other}"]
    assert retrieval.main(evaluate(data, tmp_path / "out", *models)) == 0
    folders = sorted((tmp_path / "out").iterdir())
    hashes = {results(folder)["checkpoint"]["sha256"] for folder in folders}
    assert {folder.name for folder in folders} == {f"open_clip_tiny-clip-{sha256[:8]}" for sha256 in hashes}
    assert len(hashes) == 2
    models[-1] = f"open_clip:{NAME}:{weights.parent}/../{weights.parent.name}/{weights.name}"
    said = failing(retrieval.main, evaluate(data, tmp_path / "out", *models), capsys)
    assert "holds the same weights as" in said


def test_all_data_sets_side_by_side(data, checkpoint, weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--all", "--model", f"TVTSv2_Demo:{checkpoint}", "--model", f"open_clip:{NAME}:{weights}"]
    given += ["--report", "pages"]
    given += ["--set", f"data.root={data / 'data'}", "--set", f"meta={data / 'meta'}"]
    args = test_entry.parse([*given, "--num-workers", "0", "-d", "cpu"])
    assert run_all(args, ["msrvtt", "hmdb51"], test_entry.PROTOCOLS) == 0
    index = (tmp_path / "pages/index.html").read_text()
    for model in ("TVTSv2_Demo", "open_clip_tiny-clip"):
        assert f'<a href="{model}/retrieval_msrvtt.html">' in index
        page = (tmp_path / "pages" / model / "retrieval_msrvtt.html").read_text()
        assert '<a href="../index.html">' in page
    said = capsys.readouterr().out
    assert said.count("hmdb51: left out") == 1
    rows = [line for line in said.splitlines() if line.startswith("msrvtt, ")]
    found = {name: results(tmp_path / "results/retrieval/msrvtt" / name.replace(":", "_"))
             for name in ("TVTSv2_Demo", f"open_clip:{NAME}")}  # fmt: skip
    for name, kind, row in zip(
        ["TVTSv2_Demo"] * 2 + [f"open_clip:{NAME}"] * 2, ["plain", "dsl"] * 2, rows, strict=True
    ):
        assert row.startswith(f"msrvtt, {name}")
        r1 = found[name]["metrics"]["text to video"][kind]["R1"]
        assert row.removeprefix(f"msrvtt, {name}").replace("†", "").split()[0] == f"{r1:.1f}"


def test_probe_of_its_features(weights, tmp_path):
    layouts.probe_lists(tmp_path / "data", tmp_path / "meta")
    model = ["--model", f"open_clip:{NAME}:{weights}"]
    assert linear_probe.main(evaluate(tmp_path, tmp_path / "out", *model, dataset="hmdb51")) == 0
    found = results(tmp_path / "out")
    assert found["arch"] == f"open_clip:{NAME}" and found["counts"]["test videos"] == 6


def test_features_and_search(data, clip, weights, tmp_path, capsys):
    out = tmp_path / "features.safetensors"
    given = [str(data / "data/videos/all"), "-o", str(out), "-d", "cpu", "--num-workers", "0", "--tokens"]
    assert feature_extraction.main([*given, "--model", f"open_clip:{NAME}:{weights}"]) == 0
    table = load_features(out)
    chosen = linspace_frames(12, 20)  # as the official extraction has it
    for path, found in zip(table.columns["path"][:4], table.features, strict=False):
        np.testing.assert_allclose(found, clip_video(clip, Path(path), None, 20, chosen), atol=1e-6)
    assert table.columns["tokens"].shape == (5, 12, 24)
    np.testing.assert_allclose(table.columns["tokens"].mean(1), table.features, atol=1e-6)
    assert search.main(["a dog", "-f", str(out), "--checkpoint", str(weights), "-d", "cpu"]) == 0
    text = clip_text(clip, "a dog")
    sims = table.features @ text / np.linalg.norm(table.features, axis=1) / np.linalg.norm(text)
    best = Path(table.columns["path"][int(sims.argmax())]).name
    first = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("   1 "))
    assert best in first and f"{sims.max():.3f}" in first


def test_more_frames_than_tvtsv2_takes(data, clip, weights, tmp_path):
    model = ["--model", f"open_clip:{NAME}:{weights}", "--set", "num_frames=16"]
    assert retrieval.main(evaluate(data, tmp_path, *model)) == 0
    table = load_features(tmp_path / "video_embeddings.safetensors")
    expected = clip_video(clip, Path(table.columns["path"][0]), num_frames=16)
    np.testing.assert_allclose(table.features[0], expected, atol=1e-6)


def three_squares(image: Image.Image) -> list[Image.Image]:
    """The shorter side goes to 32 pixels; left, centre and right of that, or top, centre and bottom."""
    short, long = sorted(image.size)
    longer = int(32 * long / short)
    is_wide = image.width >= image.height
    small = image.resize((longer, 32) if is_wide else (32, longer), Image.Resampling.BICUBIC)
    starts = (0, round((longer - 32) / 2), longer - 32)
    return [small.crop((at, 0, at + 32, 32) if is_wide else (0, at, 32, at + 32)) for at in starts]


def test_views_are_averaged(clip, weights, tmp_path):
    """Of a wide video, and of a portrait shorter than a clip."""
    layouts.msrvtt(tmp_path / "data", tmp_path / "meta")
    layouts.write_video(tmp_path / "data/videos/all/video4.mp4", seed=4, frames=5, size=(48, 80))
    model = ["--model", f"open_clip:{NAME}:{weights}", "--crops", "3"]
    assert retrieval.main(evaluate(tmp_path, tmp_path / "out", *model)) == 0
    table = load_features(tmp_path / "out/video_embeddings.safetensors")
    as_clip = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    *_, to_tensor, standardise = as_clip.transforms
    for path, found in zip(table.columns["path"], table.features, strict=True):
        frames, _, _ = read_clip(path, 12)
        views = []
        for which in range(3):
            squares = [three_squares(image_of(frame.numpy()))[which] for frame in frames]
            with torch.no_grad():
                embeds = clip.encode_image(torch.stack([standardise(to_tensor(each)) for each in squares]))
            views.append((embeds / embeds.norm(dim=1, keepdim=True)).mean(0).numpy())
        np.testing.assert_allclose(found, np.mean(views, axis=0), atol=1e-6)
        assert np.abs(views[0] - views[2]).max() > 1e-3
    encoder = load_encoder(f"open_clip:{NAME}", str(weights), setup("cpu"))
    assert torch.equal(encoder.clip_transform.three_crops(frames)[:, 1], encoder.clip_transform(frames))


def test_weights_that_take_whole_frames_have_no_crops(data, weights, published, tmp_path, capsys):
    published(squashed=FORM)
    model = ["--model", f"open_clip:{NAME}:{weights}"]
    said = failing(retrieval.main, evaluate(data, tmp_path / "out", *model, "--crops", "3"), capsys)
    assert f"crops=3: open_clip:{NAME} takes whole frames, of which nothing is cropped" in said
    assert retrieval.main(evaluate(data, tmp_path / "out", *model, "--segments", "2")) == 0


@pytest.fixture
def published(monkeypatch):
    """Weights that open_clip knows of the tiny model."""

    def publish(**tags: dict) -> None:
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, tags)

    return publish


def test_preprocessing_and_activation_are_those_of_the_weights(data, weights, clip, published, tmp_path):
    """Which FILE these are is known by its tag, or for OpenAI's archives by what they hold."""
    published(openai={**FORM, "quick_gelu": True}, laion={"mean": (0.1,) * 3, "std": (0.2,) * 3})
    archive = tmp_path / "openai.pt"
    sizes = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77)}
    torch.save({**clip.state_dict(), **sizes, "vocab_size": torch.tensor(49408)}, archive)
    path = videos_of(data)[0]
    context = setup("cpu")
    quick = random_clip(NAME, quick_gelu=True)
    preprocess = image_transform_v2(PreprocessCfg(size=(32, 32), **FORM), is_train=False)
    expected = clip_video(quick, path, preprocess)
    assert np.abs(expected - clip_video(clip, path, preprocess)).max() > 1e-5
    for arch, file in ((f"open_clip:{NAME}", archive), (f"open_clip:{NAME}/openai", weights)):
        encoder = load_encoder(arch, str(file), context)
        frames, _, _ = read_clip(path, 12)
        with torch.no_grad():
            found, _ = encoder.model.encode_video(encoder.clip_transform(frames)[None])
        np.testing.assert_allclose(found[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"want different preprocessing: .*/TAG:FILE; TAG: openai, laion"):
        load_encoder(f"open_clip:{NAME}", str(weights), context)
    with pytest.raises(ValueError, match=r"no weights 'laionn'; did you mean 'laion'"):
        load_encoder(f"open_clip:{NAME}/laionn", str(weights), context)


def test_an_activation_that_may_be_wrong_is_warned_of(weights, published, capsys):
    published(openai={**FORM, "quick_gelu": True}, laion=FORM)
    load_encoder(f"open_clip:{NAME}", str(weights), setup("cpu"))
    said = capsys.readouterr().err
    assert "has GELU; of its published weights openai were trained with QuickGELU" in said
    load_encoder(f"open_clip:{NAME}/laion", str(weights), setup("cpu"))
    assert capsys.readouterr().err == ""


def test_published_forms_of_the_package():
    assert published_form("ViT-L-14", "laion2b_s32b_b82k")["mean"] == (0.5, 0.5, 0.5)
    assert published_form("ViT-B-32-quickgelu", "")["interpolation"] == "bicubic"
    with pytest.raises(ValueError, match="different preprocessing"):
        published_form("ViT-L-14", "")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("open_clip:tiny-clipp:FILE", "unknown model open_clip:tiny-clipp; did you mean 'tiny-clip'?"),
        ("open_clip:tiny-clip", "needs the file of its weights: open_clip:NAME:"),
        ("open_clip:tiny-clip:nowhere.pt", "no weights file"),
        ("open_clip:tiny-clip:CHECKPOINT", "left over in the file: video_model."),
        ("open_clip:tiny-clip-wide:FILE", "text_projection (file [32, 24], model [32, 40])"),
        ("open_clip:tiny-clip:HOSTILE", "HOSTILE"),
        ("open_clip:roberta-ViT-B-32:FILE", "its text tower is made by transformers"),
        ("open_clip:ViT-B-16-SigLIP:FILE", "hf download timm/ViT-B-16-SigLIP"),
        ("TVTSv2_Demoo:FILE", "did you mean 'TVTSv2_Demo'?"),
        ("TVTSv2_Demo:FILE", "FILE holds CLIP's own weights"),
    ],
)
def test_mistakes_are_explained(model, expected, data, weights, checkpoint, tmp_path, capsys):
    hostile = tmp_path / "hostile.pt"
    hostile.write_bytes(b"cposix\nsystem\n(S'touch " + bytes(tmp_path / "ran") + b"'\ntR.")
    for word, path in (("FILE", weights), ("CHECKPOINT", checkpoint), ("HOSTILE", hostile)):
        model, expected = model.replace(word, str(path)), expected.replace(word, str(path))
    said = failing(retrieval.main, evaluate(data, tmp_path, "--model", model), capsys)
    assert expected in said
    assert not (tmp_path / "ran").exists()


def test_options_that_contradict_each_other(data, weights, tmp_path, capsys):
    model = ["--model", f"open_clip:{NAME}:{weights}"]
    given = evaluate(data, tmp_path, *model, "--checkpoint", "x.pth")
    assert "leave out --checkpoint" in failing(retrieval.main, given, capsys)
    given = evaluate(data, tmp_path, *model, "--arch", "TVTSv2_B_32")
    assert "not allowed with argument" in failing(retrieval.main, given, capsys)
    said = failing(feature_extraction.main, ["a.mp4", *model, "--model", "TVTSv2_B_16"], capsys)
    assert "give --model once" in said


def test_names_of_models():
    assert ModelName.parse("TVTSv2_B_16") == ("TVTSv2_B_16", None)
    assert ModelName.parse("TVTSv2_B_16:a:b.pth") == ("TVTSv2_B_16", "a:b.pth")
    assert ModelName.parse("open_clip:ViT-L-14/openai:a/b.pt") == ("open_clip:ViT-L-14/openai", "a/b.pt")


class Colours(nn.Module):
    """A video is its mean colour, a text how often it has the letters r, g and b."""

    def encode_video(self, video, *, valid_frames=None):
        frames = video.float().mean(dim=(3, 4))  # [B, T, 3]
        return torch.stack([clip[:n].mean(0) for clip, n in zip(frames, valid_frames, strict=True)]), frames

    def encode_text(self, token_ids):
        return token_ids.float() + 0.5


def count_letters(texts):
    return torch.tensor([[text.count(letter) for letter in "rgb"] for text in texts])


def test_an_encoder_of_ones_own(data, tmp_path):
    transform = clip_transform("test", 16)
    encoder = Encoder(
        Colours(), count_letters, transform, transform, 12, "colours", Path("none"), sha256="version 1"
    )
    overrides = [f"data.root={data / 'data'}", f"meta={data / 'meta'}", "num_workers=0"]
    config = load_config(EvaluationConfig, config_path(None, "msrvtt"), overrides)
    evaluator = Evaluator(encoder, setup("cpu"))
    job = evaluator.open(retrieval.PROTOCOL, config, tmp_path, "python mine.py")
    evaluator.write(job, evaluator.evaluate(job))
    videos = [
        transform(read_clip(path, 12)[0]).float().mean(dim=(0, 2, 3)).numpy() for path in videos_of(data)
    ]
    texts = [count_letters([text])[0].numpy() + 0.5 for text in layouts.QUERIES[:5]]
    check_retrieval(results(tmp_path), videos, texts, [0, 1, 2, 3, 4])
