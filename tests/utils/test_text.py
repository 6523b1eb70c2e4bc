"""Words for messages."""

import json

from utils.text import counted, one_line, told_apart


def test_a_noun_follows_its_number():
    assert [counted(n, "videos") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert counted(1, "classes") == "1 class"
    assert counted(1, "training videos") == "1 training video"


def test_what_would_break_a_line_is_written_as_json():
    assert one_line("plain name, café 視頻.mp4") == "plain name, café 視頻.mp4"
    for text in ("a\nb", "a\tb", "a\r", "a\u2028b", "latin\udce9.mp4"):
        line = one_line(text)
        assert len(line.splitlines()) == 1 and "\t" not in line
        assert line.encode() and json.loads(line) == text


def test_namesakes_are_told_apart_by_their_folders():
    paths = ["/v/2024/a.mp4", "/v/2025/a.mp4", "/w/2025/a.mp4", "/v/b.mp4", "b", "/b", "/v/b.mp4"]
    assert told_apart(paths) == {
        "/v/2024/a.mp4": "2024/a.mp4",
        "/v/2025/a.mp4": "v/2025/a.mp4",
        "/w/2025/a.mp4": "w/2025/a.mp4",
        "/v/b.mp4": "b.mp4",
        "b": "b",
        "/b": "/b",
    }
    assert told_apart([]) == {}
