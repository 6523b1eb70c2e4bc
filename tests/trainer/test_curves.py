"""A run's picture, and what is said where there is no run or no place for it."""

import pytest
from PIL import Image

from trainer import curves


def test_a_run_is_drawn(undisturbed, tmp_path, capsys):
    curves.main([str(undisturbed)])
    assert Image.open(undisturbed / "curves.png").size[0] > 1000
    assert str(undisturbed / "curves.png") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "output", "expected"), [("x", "x.png", "metrics.jsonl"), ("", "no/x.png", "no/x.png")]
)
def test_mistakes_are_explained(undisturbed, capsys, run, output, expected):
    with pytest.raises(SystemExit) as stop:
        curves.main([str(undisturbed / run), "--output", str(undisturbed / output)])
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err
