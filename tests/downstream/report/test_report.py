"""Tables and results."""

import json
from collections.abc import Sequence

from data_loader.failures import Failure
from downstream.options import CONFIGS
from downstream.report import Evaluation, Measurement, evaluation_table, paper_tables
from utils.config import load_config
from utils.schema import EvaluationConfig


def config(name: str, *overrides: str) -> EvaluationConfig:
    return load_config(EvaluationConfig, CONFIGS / f"{name}.json", overrides)


def published(found: EvaluationConfig, arch: str) -> dict:
    return Evaluation(found.task, found, arch, Measurement({}, [], {})).published


def retrieval(r1: float, arch: str, missing: Sequence[Failure] = ()) -> Evaluation:
    row = {"R1": r1, "R5": 50.0, "R10": 60.0, "R50": 80.0, "MedR": 4.0, "MeanR": 9.0}
    metrics = {
        "text to video": {"plain": row, "dsl": row | {"R1": 99.9}},
        "video to text": {"plain": row, "dsl": row},
    }
    measured = Measurement(metrics, [], {"videos": 1000, "captions": 1000})
    return Evaluation("retrieval", config("msrvtt"), arch, measured, list(missing))


def test_every_config_is_complete_and_names_no_unknown_key():
    names = sorted(path.stem for path in CONFIGS.glob("*.json"))
    assert {"msrvtt", "didemo", "lsmdc", "hmdb51", "ucf101", "k400", "ssv2_mc"} <= set(names)
    for name in names:
        found = config(name)
        assert found.name == name and found.source


def test_published_numbers_are_those_of_the_paper():
    assert published(config("msrvtt"), "TVTSv2_B_32")["plain"] == {
        "R1": 34.5,
        "R5": 58.5,
        "R10": 67.7,
        "MedR": 3.5,
    }
    assert published(config("lsmdc"), "TVTSv2_H_14")["dsl"] == {
        "R1": 20.0,
        "R5": 37.8,
        "R10": 48.6,
        "MedR": 11.0,
    }
    assert published(config("k400"), "TVTSv2_H_14")["plain"] == {"top1": 59.6}
    assert published(config("ssv2_mc"), "TVTSv2_B_16")["plain"] == {"top1": 42.1}
    assert published(config("hmdb51"), "TVTSv2_B_32") == {}
    for name in ("msrvtt", "didemo", "lsmdc"):
        for arch in ("TVTSv2_B_32", "TVTSv2_B_16", "TVTSv2_H_14"):
            for numbers in published(config(name), arch).values():
                assert numbers["R1"] < numbers["R5"] < numbers["R10"]


def test_another_cut_has_no_published_numbers():
    assert published(config("msrvtt", "data.cut=full-test"), "TVTSv2_B_32") == {}
    assert published(config("didemo", "data.split=train"), "TVTSv2_B_32") == {}
    assert published(config("hmdb51", "data.fold=2"), "TVTSv2_B_16") == {}
    assert published(config("hmdb51", "data.fold=1"), "TVTSv2_B_16")["plain"] == {"top1": 50.4}


def test_ours_stand_beside_the_published():
    table = evaluation_table(retrieval(34.4, "TVTSv2_B_32"), dsl=True)
    lines = table.splitlines()
    assert lines[1].split() == ["R@1", "R@5", "R@10", "R@50", "MdR", "MnR"]
    assert lines[2].split() == ["text", "to", "video", "34.4", "50.0", "60.0", "80.0", "4.0", "9.0"]
    assert lines[3].split() == ["published", "34.5", "58.5", "67.7", "–", "3.5", "–"]
    assert lines[4].split()[3:5] == ["†", "99.9"]
    assert lines[5].split()[1] == "36.4"
    assert table.count("published") == 2  # the paper has text to video only
    assert "†" not in evaluation_table(retrieval(34.4, "TVTSv2_B_32"))


def test_missing_videos_are_said():
    table = evaluation_table(retrieval(1.0, "TVTSv2_B_32", [Failure("a.mp4", "empty")]))
    assert "WITHOUT 1 video " in table


def test_the_papers_tables():
    top1 = Measurement({"accuracy": {"plain": {"top1": 50.0, "top5": 70.0}}}, [], {"videos": 9})
    recognised = Evaluation("recognition", config("hmdb51"), "TVTSv2_H_14", top1)
    found = [retrieval(38.0, "TVTSv2_H_14", [Failure("a", "b")]), recognised]
    text = paper_tables({"TVTSv2_H_14": found})
    assert "Table 2" in text and "Table 3" in text
    assert "msrvtt*" in text and "* without" in text
    assert "52.1" in text and "50.0" in text and "41.3" in text


def test_published_file_is_valid_json():
    numbers = json.loads((CONFIGS.parent / "report" / "published.json").read_text())
    assert numbers["linear_probe"]["hmdb51"]["TVTSv2_B_16"]["plain"]["top1"] == 64.7
