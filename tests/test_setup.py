"""The package `tvtsv2`: built as a wheel, installed, and used from outside the clone."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch

from downstream.__main__ import COMMANDS
from model import create_model
from tests.data_loader.video_files import write_video
from tests.extras import extra
from utils.config import REPOSITORY

setuptools = extra("setuptools")
if int(setuptools.__version__.partition(".")[0]) < 77 and not os.environ.get("REQUIRE_EXTRAS"):
    pytest.skip("needs setuptools>=77", allow_module_level=True)

FOLDERS = ("CLIP", "OpenCLIP", "configs", "data_loader", "downstream", "model", "trainer", "utils")
FILES = ("README.md", "License.txt", "pyproject.toml", "requirement.txt", "setup.py", "test.py", "train.py")


def call(*command: object, **options) -> subprocess.CompletedProcess[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*map(str, command)], text=True, timeout=300, **given)


def pip(*arguments: object) -> subprocess.CompletedProcess[str]:
    plain = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
    return call(sys.executable, "-m", "pip", *arguments, *plain)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What of this repository goes into the wheel; a build leaves files beside it."""
    folder = tmp_path_factory.mktemp("source") / "clone"
    for name in FOLDERS:
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "models", ".*")
        )
    for name in FILES:
        shutil.copy(REPOSITORY / name, folder)
    (folder / "CLIP" / "models").mkdir()
    (folder / "CLIP" / "models" / "mine.json").write_text("{}")  # a user's, like weights
    return folder


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = pip("wheel", clone, "--no-build-isolation", "--wheel-dir", folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = pip("install", wheel, "--target", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def outside(site, tmp_path):
    """Runs Python code, or the installed command, in a folder that knows nothing of the clone."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def run(*command: object, **options) -> subprocess.CompletedProcess[str]:
        return call(sys.executable, *command, cwd=tmp_path, env=environment, **options)

    return run


def test_the_wheel_holds_all_of_the_folders_below_one_name(wheel, clone):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"tvtsv2/__init__.py", "tvtsv2/License.txt", "tvtsv2/test.py", "tvtsv2/train.py"}
    for folder in FOLDERS:
        files = (
            path for path in (clone / folder).rglob("*") if path.is_file() and "models" not in path.parts
        )
        expected |= {f"tvtsv2/{path.relative_to(clone).as_posix()}" for path in files}
    assert {name for name in names if ".dist-info/" not in name} == expected
    (installed,) = importlib.metadata.distributions(name="tvtsv2", path=[str(wheel)])
    required = [line for line in installed.requires if "extra ==" not in line]
    listed = (REPOSITORY / "requirement.txt").read_text().splitlines()
    assert len(required) == len([line for line in listed if line and line[0] != "#"])
    assert any(name.endswith("licenses/License.txt") for name in names)


@pytest.mark.heavy
def test_every_module_imports_under_the_new_name_and_no_other(outside, site, wheel):
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.endswith(".py") and "triton_" not in name
    ]
    done = outside(
        "-c",
        "import importlib, json, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"assert {str(REPOSITORY)!r} not in sys.path\n"
        f"print(json.dumps([name for name in {[*FOLDERS, 'test', 'train']!r} if name in sys.modules]))\n"
        "from pkgutil import resolve_name\n"
        "from tvtsv2.data_loader import build_dataset, registry  # by name, from a module of its own\n"
        "for name in (registry.DATASETS | registry.SHARDED).values():\n"
        "    assert callable(resolve_name(name)), name\n"
        "print(json.dumps([sys.modules['tvtsv2'].__file__, build_dataset.__module__]))\n",
    )
    assert done.returncode == 0, done.stderr
    others, found = map(json.loads, done.stdout.splitlines())
    assert others == []
    assert found == [str(site / "tvtsv2" / "__init__.py"), "tvtsv2.data_loader.registry"]


@pytest.mark.heavy
def test_features_and_search(outside, site, tmp_path):
    torch.manual_seed(0)
    torch.save(create_model("TVTSv2_Demo").state_dict(), tmp_path / "demo.pth")
    write_video(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4", first=20)
    options = ("--arch", "TVTSv2_Demo", "--checkpoint", "demo.pth", "-d", "cpu", "--num-workers", "0")
    given = ("a.mp4", "b.mp4", *options, "--output", "out.safetensors", "--report", "page")
    done = outside(site / "bin" / "tvtsv2", "features", *given)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.safetensors.report.json").read_text())
    assert report["vectors"] == 2 and report["failed_files"] == []
    versions = report["versions"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (versions["tvtsv2"], versions["commit"]) == (project["version"], None)
    assert versions["torch"] == importlib.metadata.version("torch")
    assert (tmp_path / "page" / "features.html").is_file()

    done = outside(
        "-c",
        "from tvtsv2.downstream import search\n"
        "from tvtsv2.downstream.features import extract_features, load_features\n"
        "from tvtsv2.model import create_model\n"
        "videos = ['a.mp4', 'b.mp4']\n"
        "new = extract_features(videos, 'TVTSv2_Demo', 'demo.pth', device='cpu', num_workers=0).table\n"
        "old = load_features('out.safetensors')\n"
        "assert (new.features == old.features).all() and new.features.shape == (2, 96)\n"
        "options = ['--features', 'out.safetensors', '--checkpoint', 'demo.pth', '-d', 'cpu']\n"
        "assert search.main(['a dog', *options]) == 0\n",
    )
    assert done.returncode == 0, done.stderr
    assert "2 vectors of 2 videos" in done.stdout and "a.mp4" in done.stdout


@pytest.mark.heavy
def test_its_help_speaks_of_itself(outside, site):
    command = site / "bin" / "tvtsv2"
    done = outside(command, "--help")
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    done = outside(
        "-c",
        "from tvtsv2.downstream.__main__ import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    try:\n"
        "        main([name, '--help'])\n"
        "    except SystemExit as ended:\n"
        "        assert ended.code == 0\n"
        "    print('>>>')\n",
    )
    assert done.returncode == 0, done.stderr
    for name, text in zip(COMMANDS, done.stdout.split(">>>\n"), strict=False):
        assert text.startswith(f"usage: tvtsv2 {name} ") and f"\nexamples:\n  tvtsv2 {name}" in text
        assert "python " not in text and "bash " not in text and ".py " not in text, text
    done = outside(command, "featurs")
    assert done.returncode == 2 and "features" in done.stderr


@pytest.mark.heavy
def test_the_same_commands_in_the_clone():
    done = call(sys.executable, "-m", "downstream", "search", "--help", cwd=REPOSITORY)
    assert done.returncode == 0 and "python downstream/search.py" in done.stdout, done.stderr


@pytest.mark.heavy
def test_files_of_the_user_belong_into_the_current_folder(outside, site, tmp_path):
    """And the configs that come along are found, not the data that they name."""
    test = ["test", "--dataset", "msrvtt", "--arch", "TVTSv2_Demo", "--checkpoint", "none.pth", "-d", "cpu"]
    commands = [
        ["features", "--text", "a dog", "--output", "out.npz", "-d", "cpu"],
        ["download", "--help"],
        test,
        ["train", "--config", "configs/demo.json", "-d", "cpu"],
    ]
    done = outside(
        "-c",
        "import sys\n"
        "from tvtsv2.downstream.__main__ import main\n"
        f"for arguments in {commands!r}:\n"
        "    print('>>>', flush=True)\n"
        "    try:\n"
        "        status = main(arguments)\n"
        "    except SystemExit as ended:\n"
        "        status = ended.code\n"
        "    sys.stderr.flush()\n"
        "    print('status', status, flush=True)\n",
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0 and str(site) not in done.stdout, done.stdout
    features, download, evaluation, training = done.stdout.split(">>>\n")[1:]
    assert f"belong at {tmp_path}/TVTSv2_ViT_B_16.pth; fetch them with: tvtsv2 download" in features
    assert "status 2" in features
    assert " CLIP/models/ViT-B-16.pt\n" in download and "status 0" in download
    assert "no weights file none.pth" in evaluation and "status 2" in evaluation
    assert "data/demo" in training and "status 2" in training, training
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_an_editable_installation_is_refused(clone, tmp_path):
    done = pip("install", "--editable", clone, "--no-build-isolation", "--target", tmp_path)
    assert done.returncode != 0 and "leave out -e" in done.stderr + done.stdout


def test_an_import_that_binds_another_name_ends_the_build(clone, tmp_path):
    copy = shutil.copytree(clone, tmp_path / "copy")
    (copy / "utils" / "new.py").write_text("import os\n\nimport model.loss\n")
    done = pip("wheel", copy, "--no-build-isolation", "--wheel-dir", tmp_path)
    assert done.returncode != 0
    assert "utils/new.py, line 3: write it as `from … import …`" in done.stderr + done.stdout
