import logging

import pytest
import torch

from data_loader.failures import TooManyUnreadable, UnreadableCounter


def batch(size: int, *failures: tuple[str, str], problems=()) -> dict:
    return {"index": torch.zeros(size), "failures": list(failures), "problems": list(problems)}


def test_counts_and_logs_each_file_once(caplog):
    counter = UnreadableCounter()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            counter.update(batch(9, ("a.mp4", "the file is empty")))
    assert counter.summary() == "3 of 30 videos tried could not be read (10.00%)"
    assert caplog.messages == ["unreadable, another sample takes its place: a.mp4 (the file is empty)"]
    assert counter.files == {"a.mp4": "the file is empty"}


def test_stops_above_the_limit_once_enough_were_tried():
    counter = UnreadableCounter(max_fraction=0.01, min_tried=100)
    counter.update(batch(89, ("a.mp4", "empty"), ("b.mp4", "empty")))
    counter.raise_if_too_many(counter.read, counter.failed)
    counter.update(batch(9, ("c.mp4", "gone")))
    with pytest.raises(
        TooManyUnreadable, match=r"3 of 101 .*max_unreadable, 1\.00%.*\n.*\n.*\n.*c\.mp4: gone"
    ):
        counter.raise_if_too_many(counter.read, counter.failed)


def test_the_counts_of_all_ranks_decide():
    counter = UnreadableCounter(max_fraction=0.01, min_tried=100)
    counter.update(batch(95, *((f"{i}.mp4", "empty") for i in range(5))))
    counter.raise_if_too_many(read=995, failed=5)
    with pytest.raises(TooManyUnreadable, match="11 of 1000"):
        counter.raise_if_too_many(read=989, failed=11)


def test_goes_on_at_the_limit():
    counter = UnreadableCounter(max_fraction=0.01, min_tried=100)
    for i in range(10):
        counter.update(batch(99, (f"{i}.mp4", "empty")))
        counter.raise_if_too_many(counter.read, counter.failed)
    assert counter.fraction == 0.01


def test_an_epoch_starts_anew_but_logs_nothing_twice(caplog):
    counter = UnreadableCounter()
    counter.update(batch(9, ("a.mp4", "empty"), problems=["words without a time"]))
    counter.start_epoch()
    assert counter.summary() == "0 of 0 videos tried could not be read (0.00%)"
    caplog.clear()
    counter.update(batch(9, ("a.mp4", "empty")))
    assert not caplog.messages


def test_the_summary_counts_by_set_where_there_are_several():
    counter = UnreadableCounter()
    counter.update(batch(9, ("a.mp4", "empty")), "first")
    counter.update(batch(5), "second")
    counter.update(batch(10), "first")
    assert counter.summary().endswith("(4.00%), first 1 of 20, second 0 of 5")


def test_the_summary_names_what_was_mended():
    counter = UnreadableCounter()
    counter.update(batch(3, problems=["times out of order", "words without a time", "times out of order"]))
    assert counter.summary().endswith("; transcripts mended: 2 times out of order, 1 words without a time")


def test_a_short_epoch_is_checked_when_it_ends():
    counter = UnreadableCounter(max_fraction=0.01, min_tried=100)
    counter.update(batch(9, ("a.mp4", "empty")))
    counter.raise_if_too_many(counter.read, counter.failed)
    with pytest.raises(TooManyUnreadable, match=r"1 of 10 videos.*\n  a\.mp4: empty"):
        counter.raise_if_too_many(counter.read, counter.failed, epoch_over=True)
