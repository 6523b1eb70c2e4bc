import pytest

from data_loader import build_dataset
from tests.data_loader import worlds
from tests.data_loader.worlds import options


def test_each_video_has_its_own_options(tmp_path):
    worlds.ssv2(tmp_path)
    dataset = build_dataset("SSV2-MC", "test", **options(tmp_path))
    assert [dataset.records.options(i) for i in range(2)] == [["push it", "pull it"], ["pull it", "lift it"]]
    assert dataset.records.answers.tolist() == [1, 0]
    assert dataset.records.path(1) == tmp_path / "data/videos/2.mp4"
    item = dataset[1]
    assert (item["answer"], item["text"], item["id"]) == (0, ["pull it"], "2.mp4")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"clip_name": "1", "options": ["a", "b"]}', r"val\.jsonl, line 1 must be .*'answer'"),
        ("nonsense", "line 1 must be"),
        ('{"clip_name": "1", "options": ["a", "b"], "answer": 2}', "the answer 2 is none of the 2 options"),
        ('{"clip_name": "1", "options": ["a", "b"], "answer": "c"}', "the answer 'c' is none of the 2"),
        ('{"clip_name": "1", "options": "ab", "answer": 0}', "the options are ab, not a list of sentences"),
        ('{"clip_name": "1", "options": ["a", 5], "answer": 0}', "not a list of sentences"),
        ('{"clip_name": 1, "options": ["a", "b"], "answer": 0}', "line 1: clip_name is 1, not a text"),
        ('{"clip_name": "1", "options": ["a", "\\ud83d"], "answer": 0}', "half a character"),
        ('{"clip_name": "1", "options": ["a"], "answer": true}', "the answer True is none"),
        ("[" * 100_000, "line 1 must be"),
        ("", "is empty: expected the questions"),
        (
            '{"clip_name": "1", "options": ["a"], "answer": 0}\n'
            '{"clip_name": "2", "options": ["a", "b"], "answer": 0}',
            "the numbers of options differ, 1 to 2",
        ),
    ],
)
def test_malformed_questions_are_named(tmp_path, line, message):
    worlds.ssv2(tmp_path)
    (tmp_path / "meta_data/ssv2/mc/val.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        build_dataset("ssv2", "test", **options(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
    worlds.ssv2(tmp_path)
    (tmp_path / "data/videos").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="the videos of Something-Something V2"):
        build_dataset("ssv2", "test", **options(tmp_path))
