"""Processes of one run that were started otherwise, or see other data, than the rest of it."""

import json
import shutil
from collections.abc import Sequence

import pytest
import torch

from tests.trainer import different_rank
from tests.trainer.runs import LIMIT

pytestmark = pytest.mark.heavy  # each starts processes


@pytest.fixture
def ended(start, arguments, tmp_path):
    """Exit statuses of two processes, of which the second has more arguments, and what each said."""

    def ended(*more: str, flags: Sequence[str] = (), **settings) -> list[tuple[int, str]]:
        given = [*arguments(*flags, name="two", trainer__max_steps=2, **settings), "--", *more]
        processes = start.ranks(2, given, tmp_path / "says", different_rank.main)
        for process in processes:
            process.join(LIMIT)
        said = [(tmp_path / f"says{rank}").read_text() for rank in range(2)]
        return [(process.exitcode, text) for process, text in zip(processes, said, strict=True)]

    return ended


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (["--set", "trainer.epochs=1"], "trainer.epochs is 1, on process 0 2"),
        (["--resume", "auto"], "--resume is 'auto', on process 0 None"),
    ],
)
def test_another_command_is_named_on_all(ended, more, difference):
    for status, said in ended(*more):
        assert status == 2, said
        assert f"process 1 was not started as process 0: {difference}. All need the same command" in said


@pytest.mark.parametrize("change", ["shorter", "another order"])
def test_another_list_is_named_on_all(ended, world, tmp_path, change):
    meta = shutil.copytree(world / "meta_data", tmp_path / "meta")
    [path] = meta.glob("webvid*train*")
    head, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, *(lines[:-1] if change == "shorter" else lines[::-1])]))
    for status, said in ended("--set", f"data.meta={meta}"):
        assert status == 2, said
        assert "process 1 was not started as process 0: data.train, webvid." in said
        assert ("webvid.samples is" in said) == (change == "shorter")


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("begin", ["start", "resume"])
def test_other_weights_under_one_name_are_named_on_all(ended, undisturbed, tmp_path, begin, engine):
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        shutil.copy(undisturbed / "checkpoint-epoch2.pth", tmp_path / name / "w.pth")
    state = torch.load(tmp_path / "1/w.pth", weights_only=True)
    state["state_dict"]["text_projection"][0, 0] += 0.1
    torch.save(state, tmp_path / "1/w.pth")
    settings = {"arch__start_from": "w.pth"} if begin == "start" else {}
    flags = [f"cd={tmp_path / '0'}", *(["--resume", "w.pth"] if begin == "resume" else [])]
    for status, said in ended(f"cd={tmp_path / '1'}", flags=flags, trainer__engine=engine, **settings):
        assert status == 2, said
        assert "process 1 begins with other weights than process 0: 1 of " in said
        assert "text_projection among them. " in said


def test_what_may_differ_from_machine_to_machine_does(ended, world, tmp_path):
    moved = shutil.copytree(world, tmp_path / "moved")
    entries = [{"type": "webvid", "root": str(moved / "WebVid")}]
    own = [{"type": "webvid", "root": str(world / "WebVid")}]
    more = [f"data.train={json.dumps(entries)}", f"data.meta={moved / 'meta_data'}", "data.num_workers=1"]
    both = ended(*(part for each in more for part in ("--set", each)), data__train=own, data__val=[])
    assert [status for status, _ in both] == [0, 0], both


def test_a_rank_that_cannot_begin_is_the_cause_that_the_other_names(ended, tmp_path):
    (waiting, why), (mistaken, mistake) = ended("--set", f"data.meta={tmp_path / 'gone'}")
    assert (waiting, mistaken) == (1, 2)
    assert str(tmp_path / "gone") in mistake
    assert "another process of this run has ended" in why
