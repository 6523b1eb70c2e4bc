import re
import subprocess
import sys

import pytest

from model.plan import plan


def figure(text: str, name: str) -> float:
    return float(re.search(rf"{name}\s+([\d,.]+)", text)[1].replace(",", ""))


def test_hours_follow_from_the_rate():
    text = plan("TVTSv2_B_16", gpus=32, samples=10e6, epochs=10, rate=500, efficiency=0.9)
    assert figure(text, "clips a second, all GPUs") == 32 * 500 * 0.9
    assert figure(text, "  hours") == pytest.approx(100e6 / 14400 / 3600, abs=0.05)
    assert figure(text, "GPU-hours") == pytest.approx(32 * 100e6 / 14400 / 3600, abs=0.05)
    assert "GiB" not in text  # of another card or config it is not known
    assert "--rate" in text and "--efficiency" in text


def test_measured_rates_name_their_source_and_what_was_not_measured():
    text = plan("TVTSv2_H_14", gpus=4, samples=1e6, epochs=1, card="H100")
    assert figure(text, "clips a second, one GPU") == 85
    assert "H100" in text and "not measured" not in text
    assert "not measured" in plan("TVTSv2_H_14", gpus=80, samples=1e6, epochs=1)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"gpus": 0}, "--gpus is 0"),
        ({"samples": float("nan")}, "--samples is nan"),
        ({"efficiency": 1.5}, "--efficiency is 1.5"),
        ({"efficiency": 0.0}, "--efficiency is 0"),
        ({"rate": 0.0}, "--rate is 0"),
        ({"name": "TVTSv2_Demo"}, "give yours with --rate"),
    ],
)
def test_mistakes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        plan(**{"name": "TVTSv2_B_16", "gpus": 8, "samples": 1e6, "epochs": 1} | wrong)


@pytest.mark.heavy
def test_command():
    command = [sys.executable, "-m", "model.summary", "TVTSv2_B_16", "--plan"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--samples" in done.stderr
    done = subprocess.run(
        [*command, "--gpus", "32", "--samples", "10e6", "--epochs", "10"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "GPU-hours" in done.stdout, done.stderr
