"""Training on captioned spans, in place of the paper's sets."""

import json

import train


def test_spans_are_trained_on_and_sorted(world, arguments, tmp_path):
    lists = {"files": {split: f"spans_{split}.tsv" for split in ("train", "val")}}
    common = {"type": "csv", "root": str(world / "YTTemporal/videos"), **lists}
    sets = [{**common, "name": "sequences", "num_clips": 4}, {**common, "name": "spans"}]
    options = {"name": "spans", "data__train": sets, "data__val": sets, "trainer__epochs": 1}
    assert train.main(arguments(**options, trainer__monitor="max sequences_order_accuracy")) == 0
    rows = [json.loads(line) for line in (tmp_path / "spans/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    assert {row["set"] for row in steps} == {"sequences", "spans"}
    assert all(("sorting" in row) == (row["set"] == "sequences") for row in steps)
    [validation] = [row for row in rows if row["kind"] == "validation"]
    assert {name for name in validation if "order" in name} == {"sequences_order_accuracy"}
    assert "spans_t2v_R1" in validation
