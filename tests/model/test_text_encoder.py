import pytest
import torch

from model import create_model
from model.text_encoder import cut_to_longest


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("TVTSv2_Demo").eval()


def random_ids(lengths, context=77):
    ids = torch.zeros(len(lengths), context, dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(1, 49406, (length,))
        row[0], row[length - 1] = 49406, 49407
    return ids


def uncut(model, ids):
    """The text tower over all columns."""
    x = model.text_token_embedding(ids) + model.text_positional_embedding[: ids.shape[1]]
    x = model.text_ln_final(model.text_model(x)) @ model.text_projection
    return x[torch.arange(len(ids)), ids.argmax(-1)]


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(2, 9, 5), (77, 3), (2,)])
def test_cutting_to_the_longest_text_changes_nothing(model, lengths):
    ids = random_ids(lengths)
    assert cut_to_longest(ids).shape[1] == max(lengths)
    got, want = model.encode_text(ids), uncut(model, ids)
    assert (got - want).abs().max() <= 1e-6 * want.abs().max().clamp(min=1)
    torch.testing.assert_close(model.encode_text(cut_to_longest(ids)), got)


def test_only_the_columns_needed_are_computed(model):
    seen = []
    hook = model.text_model.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    model.encode_text(random_ids((4, 11)))
    hook.remove()
    assert seen == [11]


@torch.no_grad()
def test_what_stands_behind_the_end_is_not_seen(model):
    ids = random_ids((6, 12))
    other = ids.clone()
    other[0, 6:10] = 5
    torch.testing.assert_close(model.encode_text(other), model.encode_text(ids))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(2, 78, dtype=torch.int64), r"\[texts, 1 to 77\].*got shape \[2, 78\]"),
        (torch.zeros(77, dtype=torch.int64), "got shape"),
        (torch.zeros(2, 77), "must be int64"),
        (torch.full((2, 77), 49408), r"0\.\.49407, got 49408"),
        (torch.full((2, 77), -1), r"got -1"),
    ],
)
def test_mistakes_are_refused(model, ids, message):
    with pytest.raises(ValueError, match=message):
        model.encode_text(ids)


def trained_state(model, ids):
    """Bytes of AdamW's state after one step on the texts."""
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    model.encode_text(ids).square().sum().backward()
    optimizer.step()
    return {name for name, p in model.named_parameters() if p in optimizer.state}


def test_frozen_blocks_are_not_trained_and_the_embeddings_below_them_are():
    model = create_model("TVTSv2_Demo", trained_text_blocks=1)
    trained = trained_state(model, random_ids((5, 8)))
    assert {"text_token_embedding.weight", "text_positional_embedding"} <= trained
    blocks = {name.split(".")[2] for name in trained if name.startswith("text_model.")}
    assert blocks == {"2"}


def test_frozen_text_embeddings_make_the_frozen_part_run_without_gradients():
    model = create_model("TVTSv2_Demo", trained_text_blocks=1, freeze_text_embeddings=True)
    needs_gradient = []
    for block in model.text_model.resblocks:
        block.register_forward_hook(lambda _module, _args, out: needs_gradient.append(out[1].requires_grad))
    trained = trained_state(model, random_ids((5, 8)))
    assert needs_gradient == [False, False, True]
    assert not {"text_token_embedding.weight", "text_positional_embedding"} & trained


@pytest.mark.parametrize(("name", "trained"), [("TVTSv2_B_32", 3), ("TVTSv2_H_14", 6), ("TVTSv2_Demo", 3)])
def test_official_freezing(name, trained):
    with torch.device("meta"):
        model = create_model(name)
    blocks = [all(p.requires_grad for p in block.parameters()) for block in model.text_model.resblocks]
    assert blocks == [False] * (len(blocks) - trained) + [True] * trained
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert all(name.startswith("text_model.resblocks.") for name in frozen)
