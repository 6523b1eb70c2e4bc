"""Several real processes: the gather's two gradients, against one process on the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer.config import REPOSITORY
from trainer.distributed import gather_batch

SCRIPT = Path(__file__).with_name("gradients.py")


def run(processes: int, *arguments: object) -> None:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [*launch, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("gradients")
    (folder / "one").mkdir()
    run(1, folder / "one", "exact")
    run(2, folder, "exact")
    run(2, folder, "official")
    paths = {
        "one": folder / "one/exact.pt",
        "exact": folder / "exact.pt",
        "official": folder / "official.pt",
    }
    return {name: torch.load(path, weights_only=True) for name, path in paths.items()}


def test_losses_do_not_depend_on_the_number_of_processes(results):
    for name in ("exact", "official"):
        for loss in ("contrastive", "sorting"):
            torch.testing.assert_close(results[name][loss], results["one"][loss], rtol=1e-5, atol=1e-6)


def test_exact_gather_gives_the_gradient_of_one_process(results):
    for name, expected in results["one"]["grads"].items():
        torch.testing.assert_close(results["exact"]["grads"][name], expected, rtol=2e-4, atol=2e-6, msg=name)


def test_official_gather_halves_the_contrastive_gradient_on_two_processes(results):
    """The text tower sees the contrastive gradient alone, and the sort head the sorting gradient alone."""
    one, official = results["one"]["grads"], results["official"]["grads"]
    for name, expected in one.items():
        if name.startswith("text_"):
            torch.testing.assert_close(official[name], expected / 2, rtol=2e-4, atol=2e-6, msg=name)
        elif name.startswith("pred_model."):
            torch.testing.assert_close(official[name], expected, rtol=2e-4, atol=2e-6, msg=name)


def test_one_process_gathers_nothing():
    x = torch.ones(2, 3, requires_grad=True)
    assert gather_batch([x], "exact")[0] is x
    with pytest.raises(ValueError, match=r"loss\.gather is 'both'"):
        gather_batch([x], "both")
