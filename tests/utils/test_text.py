"""Words for messages."""

from utils.text import counted


def test_a_noun_follows_its_number():
    assert [counted(n, "videos") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert counted(1, "classes") == "1 class"
    assert counted(1, "training videos") == "1 training video"
