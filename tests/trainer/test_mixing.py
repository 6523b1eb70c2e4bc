"""Several training sets of one type, by name and weight, through the real entry point."""

import pytest

import train
from tests.trainer.runs import losses, rows
from trainer.checkpoint import list_checkpoints


@pytest.mark.heavy
def test_a_mixture_by_name_and_weight_goes_on_exactly(world, arguments, tmp_path):
    web = {"type": "webvid", "root": str(world / "WebVid")}
    narrated = {"type": "yttemporal", "root": str(world / "YTTemporal")}
    settings = {
        "data__train": [narrated, {**web, "name": "one", "weight": 2}, {**web, "name": "two"}],
        "data__val": [{**web, "name": "held-out"}],
        "trainer__monitor": "max held-out_t2v_R1",
        "trainer__epochs": 1,
        "trainer__save_every_steps": 4,
        "trainer__keep_last": None,
    }
    assert train.main(arguments(name="mixed", **settings)) == 0
    run = tmp_path / "mixed"
    expected = losses(run)
    assert [name for _, name, *_ in expected] == ["one", "yttemporal", "two", "one"] * 3
    assert len({loss for _, _, loss, *_ in expected}) == 12  # one and two draw different samples
    assert "held-out_t2v_R1" in rows(run, "validation")[0]
    said = (run / "log.txt").read_text()
    assert "one: 2 of 4 batches; 6 an epoch, 0.86 times through its 25 samples" in said

    newest = list_checkpoints(run)
    assert newest[-1].name == "checkpoint-epoch0-step1.pth"
    for path in newest[:-1]:
        path.unlink()
    assert train.main(arguments("--resume", "auto", name="mixed", **settings)) == 0
    assert losses(run) == expected
