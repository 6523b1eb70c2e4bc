import pytest
import torch

from model.sort_transformer import SortTransformer
from model.variants import VARIANTS
from tests.model.reference import plain_attention


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = SortTransformer(VARIANTS["TVTSv2_Demo"])
    torch.nn.init.normal_(head.type_embed)
    return head


def plain_sort(head, video_tokens, texts):
    """Both blocks over every token, as the official code runs them."""
    x = torch.cat([video_tokens + head.type_embed[:, 0], texts + head.type_embed[:, 1]], dim=1)
    for block in head.blocks:
        q, k, v = block.attn.qkv(block.norm1(x)).view(*x.shape[:2], 3, block.attn.heads, -1).unbind(2)
        x = x + block.attn.proj(plain_attention(q, k, v).flatten(2))
        x = x + block.mlp(block.norm2(x))
    return head.head(head.norm(x[:, -texts.shape[1] :]))


def test_reading_the_texts_alone_changes_nothing(head):
    video_tokens, texts = torch.randn(2, 9, 96), torch.randn(2, 4, 96)
    got = head(video_tokens, texts)
    assert got.shape == (2, 4, 4)
    torch.testing.assert_close(got, plain_sort(head, video_tokens, texts), atol=1e-5, rtol=1e-5)


def test_permuting_the_texts_permutes_the_rows(head):
    video_tokens, texts, order = torch.randn(2, 9, 96), torch.randn(2, 4, 96), torch.tensor([2, 0, 3, 1])
    got = head(video_tokens, texts[:, order])
    torch.testing.assert_close(got, head(video_tokens, texts)[:, order], atol=1e-5, rtol=1e-5)


def test_type_vectors_start_at_zero():
    assert not SortTransformer(VARIANTS["TVTSv2_Demo"]).type_embed.any()
