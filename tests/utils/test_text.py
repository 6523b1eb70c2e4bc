"""Words for messages."""

import json

from utils.text import counted, one_line


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
