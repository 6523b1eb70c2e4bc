import pytest
import torch

from model import create_model
from model.video_encoder import IMAGE_MEAN, IMAGE_STD


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("TVTSv2_Demo").eval()


def random_video(batch=2, frames=4, size=64):
    return torch.randint(0, 256, (batch, frames, 3, size, size), dtype=torch.uint8)


def normalised(video):
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    return (video.float() / 255 - mean) / std


def assert_same(got, want):
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_uint8_is_normalised_by_the_model(model):
    video = random_video()
    assert_same(model.encode_video(video), model.encode_video(normalised(video)))
    keep = torch.tensor([[3, 1], [15, 0]])
    assert_same(model.encode_video(video, keep), model.encode_video(normalised(video), keep))


@torch.no_grad()
def test_an_image_is_a_clip_of_one_frame(model):
    video = random_video(frames=1)
    assert_same(model.encode_video(video[:, 0]), model.encode_video(video))


@torch.no_grad()
def test_patches_are_those_of_the_convolution(model):
    tower, video = model.video_model, normalised(random_video())
    patches = tower.cut_patches(video, None).flatten(3) @ tower.conv1.weight.flatten(1).T
    want = tower.conv1(video.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (2, 4))
    torch.testing.assert_close(patches, want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_keep_ind_selects_patches_in_the_order_given(model):
    video, tower = random_video(), model.video_model
    keep = torch.stack([torch.randperm(16)[:5] for _ in range(2)])
    all_patches, kept = tower.cut_patches(video, None), tower.cut_patches(video, keep)
    for sample in range(2):
        assert torch.equal(kept[sample], all_patches[sample][:, keep[sample]])
        assert torch.equal(
            tower.patch_positions(keep)[sample, 0], tower.positional_embedding[1:][keep[sample]]
        )


@torch.no_grad()
def test_keeping_every_patch_in_any_order_changes_no_embedding(model):
    video = random_video()
    keep = torch.stack([torch.randperm(16) for _ in range(2)])
    whole, tokens = model.encode_video(video)
    shuffled, shuffled_tokens = model.encode_video(video, keep)
    torch.testing.assert_close(shuffled, whole, atol=1e-5, rtol=1e-5)
    frame_0 = tokens[0, 1:17][keep[0]]
    torch.testing.assert_close(shuffled_tokens[0, 1:17], frame_0, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 12])
@pytest.mark.parametrize("kept", [1, 7, 16])
def test_shapes_for_any_frames_and_patches(model, frames, kept):
    keep = torch.arange(kept).repeat(2, 1)
    embeds, tokens = model.encode_video(random_video(frames=frames), keep)
    assert embeds.shape == (2, 96)
    assert tokens.shape == (2, 1 + frames * kept, 96)
    assert torch.equal(tokens[:, 0], embeds)


@torch.no_grad()
def test_raw_patch_tokens_leave_out_class_token_and_last_norm():
    model = create_model("TVTSv2_Demo", sort_tokens="patches_raw", activation="gelu").eval()
    tower, video = model.video_model, random_video()
    before_norm = {}
    tower.transformer.resblocks.register_forward_hook(lambda *args: before_norm.update(x=args[2]))
    embeds, tokens = model.encode_video(video)
    torch.testing.assert_close(tokens, before_norm["x"][:, 1:] @ tower.proj)
    torch.testing.assert_close(embeds, tower.ln_post(before_norm["x"][:, 0]) @ tower.proj)


@torch.no_grad()
def test_frames_behind_valid_frames_are_zeros_after_normalising(model):
    video = random_video(frames=5)
    padded = normalised(video)
    padded[0, 2:] = 0
    valid = torch.tensor([2, 5])
    assert_same(model.encode_video(video, valid_frames=valid), model.encode_video(padded))
    keep = torch.tensor([[3, 1], [15, 0]])
    assert_same(model.encode_video(video, keep, valid), model.encode_video(padded, keep))
    assert_same(model.encode_video(normalised(video), None, valid), model.encode_video(padded))


@torch.no_grad()
def test_fewer_frames_use_the_first_temporal_embeddings(model):
    video = random_video(frames=3)
    before, _ = model.encode_video(video)
    other = create_model("TVTSv2_Demo").eval()
    other.load_state_dict(model.state_dict())
    other.video_model.temporal_embedding[3:] = 7
    assert torch.equal(other.encode_video(video)[0], before)
    other.video_model.temporal_embedding[2] = 7
    assert not torch.allclose(other.encode_video(video)[0], before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3, 3, 32, 64),), r"\[B, T, 3, 64, 64\].*got shape \[2, 3, 3, 32, 64\]"),
        ((torch.zeros(2, 3, 1, 64, 64),), "got shape"),
        ((torch.zeros(3, 64, 64),), "got shape"),
        ((torch.zeros(1, 13, 3, 64, 64),), "1 to 12 frames a clip, got 13"),
        ((torch.zeros(1, 0, 3, 64, 64),), "1 to 12 frames a clip, got 0"),
        ((torch.zeros(1, 2, 3, 64, 64, dtype=torch.int64),), "float .* or uint8"),
        ((torch.zeros(2, 2, 3, 64, 64), torch.zeros(1, 4, dtype=torch.int64)), r"keep_ind must be \[2, n\]"),
        ((torch.zeros(1, 2, 3, 64, 64), torch.zeros(1, 0, dtype=torch.int64)), "n at least 1"),
        ((torch.zeros(1, 2, 3, 64, 64), torch.zeros(1, 4)), "keep_ind must be int64"),
        ((torch.zeros(1, 2, 3, 64, 64), torch.tensor([[0, 16]])), r"0\.\.15, got 0\.\.16"),
        ((torch.zeros(1, 2, 3, 64, 64), torch.tensor([[-1, 3]])), r"0\.\.15, got -1\.\.3"),
        ((torch.zeros(1, 2, 3, 64, 64), None, torch.tensor([[1]])), r"valid_frames must be \[1\]"),
        ((torch.zeros(1, 2, 3, 64, 64), None, torch.tensor([1.0])), "valid_frames must be int64"),
    ],
)
def test_mistakes_are_refused_with_what_is_accepted(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.encode_video(*arguments)
