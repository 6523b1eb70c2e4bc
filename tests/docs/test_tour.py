"""The notebook runs from its first cell to its last, in a folder of its own, and shows what it says."""

import subprocess
import sys

import pytest

from tests.extras import extra
from utils.config import REPOSITORY

nbformat = extra("nbformat")
NotebookClient = extra("nbclient").NotebookClient
extra("ipykernel")

TOUR = REPOSITORY / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(TOUR, as_version=4)


@pytest.fixture(scope="module")
def executed(stored, tmp_path_factory):
    """A copy, executed where there is no clone: the kernel finds the repository's modules by its path."""
    notebook = nbformat.from_dict(stored)
    folder = tmp_path_factory.mktemp("tour")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        client = NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}})
        client.execute()
    assert not any(folder.iterdir())  # it writes to a temporary folder, and has cloned nothing
    return notebook


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


@pytest.mark.heavy
def test_every_cell_shows_its_results(executed):
    lines = printed(executed).splitlines()
    assert "clips: [8, 12, 3, 64, 64] torch.uint8" in lines
    assert "features: [8, 96]" in lines
    found = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert int(found["nearest to its own video"].split()[0]) >= 7
    assert int(found["own video"].split()[0]) >= 7
    assert int(found["another video"].split()[0]) <= 2
    hits = [line for line in lines if "  video " in line]
    assert len(hits) == 3 and found["query"] in hits[0]


@pytest.mark.heavy
def test_pictures_are_shown(executed):
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 4
    assert not [output for output in outputs if output.output_type == "error"]


def test_it_is_stored_without_outputs(stored):
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert TOUR.stat().st_size < 300_000
    nbformat.validate(stored)


def test_the_first_cell_installs_where_there_is_no_clone(stored, tmp_path):
    """It would clone; here from a folder that is no repository, so that git says so."""
    cell = next(cell for cell in stored.cells if cell.cell_type == "code").source

    def run(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", code]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    ended = run(cell)
    assert ended.returncode != 0 and "write the address of one into ADDRESS" in ended.stderr
    assert 'ADDRESS = ""' in cell
    ended = run(cell.replace('ADDRESS = ""', f"ADDRESS = {str(tmp_path / 'nowhere')!r}"))
    assert ended.returncode != 0 and "git" in ended.stderr and "nowhere" in ended.stderr
    assert not (tmp_path / "tvtsv2").exists()
