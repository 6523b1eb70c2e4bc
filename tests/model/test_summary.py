import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from model import create_model
from model.summary import activation_bytes, count_parameters, summarise


def kept_bytes(model, batch: int) -> int:
    """Bytes kept for backward in a real forward."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept, hold = {}, []

    def note(x):
        hold.append(x)
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        model(
            {
                "video": torch.randn(batch, 3, 3, 64, 64),
                "keep_ind": torch.arange(8).repeat(batch, 1),
                "text": torch.arange(49397, 49408).repeat(4 * batch, 1),  # end-of-text last
            }
        )
    return sum(kept.values())


def test_activation_memory_is_that_of_a_real_forward():
    model = create_model("TVTSv2_Demo")
    want = kept_bytes(model, 2) - kept_bytes(model, 1)
    with FakeTensorMode():
        got = activation_bytes(create_model("TVTSv2_Demo"), num_frames=3, texts=4, text_len=11)
    assert got == pytest.approx(want, rel=0.02)


def test_parameters_by_part():
    with torch.device("meta"):
        counts = count_parameters(create_model("TVTSv2_B_16"))
    assert counts["total"] == 184_305_668 == counts["trained"] + counts["frozen"]
    assert counts["video tower"] + counts["text tower"] + counts["sort head"] == counts["total"]
    assert counts["frozen"] == 9 * 3_152_384


@pytest.mark.heavy
def test_the_text_names_all_figures_and_checkpointing_saves_memory():
    text = summarise("TVTSv2_B_16")
    for part in (
        "total",
        "trained",
        "frozen",
        "forward and backward",
        "inference",
        "float32",
        "bf16 autocast",
    ):
        assert re.search(rf"{part}.*", text), part
    assert "184,305,668" in text

    def mebibytes(text):
        return float(re.search(r"float32\s+([\d,.]+)", text)[1].replace(",", ""))

    assert mebibytes(summarise("TVTSv2_B_16", checkpointing=1)) < 0.2 * mebibytes(text)


def test_mistakes_are_refused():
    for frames in (0, 13):
        with pytest.raises(ValueError, match="1 to 12 frames"):
            summarise("TVTSv2_Demo", num_frames=frames)
    with pytest.raises(ValueError, match="--texts is 0"):
        summarise("TVTSv2_Demo", texts=0)
    with pytest.raises(ValueError, match="token ids"):
        summarise("TVTSv2_Demo", text_len=78)
