"""Pictures of the documentation: those that need no trained demo, and what is said where there is none."""

import matplotlib.image
import pytest

from benchmarks import pictures


def test_speed(tmp_path):
    pictures.draw_speed(tmp_path / "speed.png")
    assert matplotlib.image.imread(tmp_path / "speed.png").shape[:2] == (340, 900)


def test_without_a_demo(tmp_path, capsys):
    with pytest.raises(SystemExit):
        pictures.main(["--demo", str(tmp_path), "--output", str(tmp_path / "pictures")])
    assert "holds no results of the demo: bash scripts/demo.sh makes them" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()
