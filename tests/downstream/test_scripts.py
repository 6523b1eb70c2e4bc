"""The launch scripts: all names of the official release, and what they start."""

import os
import subprocess
from pathlib import Path

import pytest

from utils.config import REPOSITORY

from . import layouts

SCRIPTS = REPOSITORY / "scripts"
VARIANTS = ("B_32", "B_16", "H_14")
RETRIEVAL = [f"zero_ret_{name}_TVTSv2_ViT_{v}.sh" for name in ("msrvtt", "didemo", "lsmdc") for v in VARIANTS]
RECOGNITION = [
    f"zero_recognition_{name}_TVTSv2_ViT_{v}.sh" for name in ("hmdb51", "ucf101", "k400") for v in VARIANTS
]
CHOICE = [f"zero_ssv2_mc_TVTSv2_ViT_{v}.sh" for v in VARIANTS]
TRAINING = [f"train_dist_TVTSv2_ViT_{v}.sh" for v in VARIANTS]
OFFICIAL = [*RETRIEVAL, *RECOGNITION, *CHOICE, *TRAINING]


def clean_environment() -> dict[str, str]:
    """This one without what the scripts read from it."""
    kept = {key: value for key, value in os.environ.items() if key not in ("GPUS", "NNODES", "MASTER_PORT")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def run(name: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(SCRIPTS / name), *arguments],
        cwd=cwd,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def python(tmp_path) -> str:
    """An interpreter that prints its arguments instead of running them, on a machine with two GPUs."""
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\ncase "$1" in -c) echo 2 ;; *) printf "%s\\n" "$@" ;; esac\n')
    fake.chmod(0o755)
    return str(fake)


def test_each_starts_the_right_file_on_all_gpus(python, tmp_path):
    """All in one shell: each is there, may be run, and hands its arguments on."""
    every = 'for name in "$@"; do printf "\\n== %s\\n" "$name"; "$SCRIPTS/$name" --more "a b"; done'
    done = subprocess.run(
        ["bash", "-ec", every, "bash", *OFFICIAL],
        cwd=tmp_path,
        env={**clean_environment(), "PYTHON": python, "SCRIPTS": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    outputs = dict(part.split("\n", 1) for part in done.stdout.split("\n== ")[1:])
    assert list(outputs) == OFFICIAL
    for name, output in outputs.items():
        words = output.splitlines()
        assert words[:6] == ["-m", "torch.distributed.run", "--nnodes", "1", "--nproc_per_node", "2"]
        assert words[-2:] == ["--more", "a b"]
        variant = name.removesuffix(".sh").partition("ViT_")[2]
        if name.startswith("train"):
            config = f"configs/dist-yt-web-pt-vit-{variant.lower().replace('_', '-')}.json"
            assert words[-5:-2] == [str(REPOSITORY / "train.py"), "--config", config]
        else:
            dataset = name.partition("_TVTSv2")[0].removeprefix("zero_ret_").removeprefix("zero_recognition_")
            config = f"downstream/configs/{dataset.removeprefix('zero_')}.json"
            expected = [str(REPOSITORY / "test.py"), "--config", config, "--arch", f"TVTSv2_{variant}"]
            assert words[-7:-2] == expected
        assert (REPOSITORY / config).is_file()


def test_number_of_processes_nodes_and_port_come_from_the_environment(python, tmp_path):
    name = OFFICIAL[0]
    assert "--standalone" in run(name, cwd=tmp_path, PYTHON=python).stdout
    assert run(name, cwd=tmp_path, PYTHON=python, GPUS="1").stdout.splitlines()[0] == str(
        REPOSITORY / "test.py"
    )
    given = {"GPUS": "4", "NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "1234"}
    words = " ".join(run(name, cwd=tmp_path, PYTHON=python, **given).stdout.splitlines())
    assert "--nnodes 2 --nproc_per_node 4 --node_rank 1 --master_addr first --master_port 1234" in words


def test_restarts_and_a_range_of_nodes_are_torchruns(python, tmp_path):
    given = {"NNODES": "2:4", "MASTER_ADDR": "first", "MAX_RESTARTS": "3", "RDZV_CONF": "last_call_timeout=9"}
    words = " ".join(run(OFFICIAL[0], cwd=tmp_path, PYTHON=python, **given).stdout.splitlines())
    assert "--nnodes 2:4 --nproc_per_node 2 --rdzv_backend c10d --rdzv_endpoint first:29500" in words
    assert "--rdzv_id tvtsv2 --rdzv_conf last_call_timeout=9 --max_restarts 3" in words
    given = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "first", "MAX_RESTARTS": "1"}
    words = " ".join(run(OFFICIAL[0], cwd=tmp_path, PYTHON=python, **given).stdout.splitlines())
    assert "--nnodes 2" in words and "--rdzv_endpoint first:29500" in words  # machines without fixed numbers
    given = {"GPUS": "1", "MASTER_PORT": "1234", "MAX_RESTARTS": "1"}
    words = " ".join(run(OFFICIAL[0], cwd=tmp_path, PYTHON=python, **given).stdout.splitlines())
    assert "--nnodes 1" in words and "--rdzv_endpoint 127.0.0.1:1234" in words
    one = run(OFFICIAL[0], cwd=tmp_path, PYTHON=python, GPUS="1", MAX_RESTARTS="1").stdout
    assert "torch.distributed.run" in one and "--standalone" in one
    done = run(OFFICIAL[0], cwd=tmp_path, PYTHON=python, NNODES="2:4")
    assert done.returncode == 2 and "MASTER_ADDR" in done.stderr


def test_several_nodes_need_their_rank_and_address(python, tmp_path):
    done = run(OFFICIAL[0], cwd=tmp_path, PYTHON=python, NNODES="2")
    assert done.returncode == 2 and "NODE_RANK" in done.stderr


def test_without_pytorch_it_says_what_to_do(tmp_path):
    done = run(OFFICIAL[0], cwd=tmp_path, PYTHON="false")
    assert done.returncode == 1 and "scripts/demo.sh" in done.stderr


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("demo.sh", "results/demo-x0.05-seed1"),
        ("test.sh", "arguments of pytest"),
        ("launch.sh", "GPUS=2 bash scripts/launch.sh test.py --all"),
        ("slurm_train.sh", "sbatch --nodes 4 scripts/slurm_train.sh"),
    ],
)
def test_help_is_the_comment_at_the_top(name, expected, tmp_path):
    done = run(name, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout and "SBATCH" not in done.stdout


@pytest.mark.heavy
def test_missing_weights(tmp_path):
    gone = ("--checkpoint", str(tmp_path / "TVTSv2_ViT_B_32.pth"))
    done = run("zero_ret_msrvtt_TVTSv2_ViT_B_32.sh", *gone, cwd=tmp_path)
    assert done.returncode == 2
    assert "TVTSv2_ViT_B_32.pth" in done.stderr and "python -m model.download TVTSv2_B_32" in done.stderr


@pytest.mark.heavy
def test_a_whole_run_from_another_folder(checkpoint, tmp_path):
    layouts.lsmdc(tmp_path / "data", tmp_path / "meta")
    done = run(
        "zero_ret_lsmdc_TVTSv2_ViT_B_16.sh",
        *(
            "--arch",
            "TVTSv2_Demo",
            "--checkpoint",
            os.path.relpath(checkpoint, tmp_path),
            "--num-workers",
            "0",
        ),
        *("--set", "data.root=data", "--set", "meta=meta", "--output", "out", "-d", "cpu"),
        cwd=tmp_path,
        GPUS="1",
    )
    assert done.returncode == 0, done.stderr
    assert "3 videos, 3 captions" in done.stdout
    assert (tmp_path / "out/results.json").is_file()
