"""A slow rank is named, in the log and in metrics.jsonl."""

import socket

import pytest

from tests.trainer import slow_rank
from tests.trainer.runs import LIMIT, rows


@pytest.mark.heavy
def test_the_rank_that_the_others_wait_for_is_named(start, arguments, tmp_path):
    settings = {"trainer__max_steps": 14, "trainer__epochs": 100, "data__val": [], "trainer__log_every_s": 1}
    processes = start.ranks(2, arguments(name="slow", **settings), tmp_path / "says", slow_rank.main)
    for process in processes:
        process.join(LIMIT)
    assert [process.exitcode for process in processes] == [0, 0], (tmp_path / "says0").read_text()
    named = [row for row in rows(tmp_path / "slow", "step") if "slowest_rank" in row]
    assert named and all(row["slowest_rank"] == 1 and len(row["rank_s"]) == 2 for row in named)
    assert all(row["rank_s"][1] > 1.6 for row in named)  # two batches a joint step
    assert f"rank 1 on {socket.gethostname()} is slow: of " in (tmp_path / "slow/log.txt").read_text()


def test_one_process_measures_nothing(finished):
    assert not any("rank_s" in row for row in rows(finished, "step"))
