"""The files of torch.save and torch.jit.save, read as data: as torch reads them, and hostile ones refused."""

import io
import os
import struct
import tracemalloc
import zipfile
from collections import OrderedDict

import open_clip
import pytest
import torch
from torch import nn

from model.checkpoint import CheckpointError, read_state_dict
from model.torch_files import check_torch_file, read_tensors
from tests.utils.test_inert_pickle import DOUBLED, NESTED_KEY

REFUSED = pytest.mark.parametrize("read", [read_tensors, check_torch_file, read_state_dict])


class MakesFolder:
    """Unpickled naively, makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_views_parameters_dtypes_and_shared_storages(tmp_path, zipped):
    base = torch.arange(12.0).view(3, 4)
    want = {
        "transposed": base.T,
        "part": base[1:, 2],
        "parameter": nn.Parameter(torch.randn(2, 2)),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "int": torch.tensor(5),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 4),
    }
    content = {**want, "not a tensor": MakesFolder(tmp_path / "made"), 7: "neither"}
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    got = read_tensors(tmp_path / "m.pth")
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].dtype == want[name].dtype
        assert torch.equal(got[name], want[name]), name
    assert not (tmp_path / "made").exists()


def test_what_is_written_to_a_tensor_does_not_reach_the_file(tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "m.pth")
    before = (tmp_path / "m.pth").read_bytes()
    read_tensors(tmp_path / "m.pth")["a"].add_(1)
    assert (tmp_path / "m.pth").read_bytes() == before


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_scripted_clip_is_read_as_torchscript_reads_it(tmp_path):
    torch.manual_seed(0)
    clip = open_clip.create_model("ViT-B-32-quickgelu", jit=False).half().eval()
    clip.a_tensor = torch.ones(3)  # an attribute, no part of the state_dict
    torch.jit.save(torch.jit.script(clip), tmp_path / "clip.pt")
    want, got = torch.jit.load(tmp_path / "clip.pt").state_dict(), read_tensors(tmp_path / "clip.pt")
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].dtype == want[name].dtype
        assert torch.equal(got[name], want[name]), name


class RunsWhenLoaded(nn.Module):
    """TorchScript calls `__setstate__` of an archive's own when it loads it."""

    def __init__(self, path: str):
        super().__init__()
        self.weight, self.path = nn.Parameter(torch.ones(2)), path

    def forward(self) -> torch.Tensor:
        return self.weight

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]):
        self.path, self.training = state[1], state[2]
        self.weight = torch.from_file(self.path, shared=True, size=4, dtype=torch.uint8).fill_(65)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_archive_with_code_that_runs_when_loaded_runs_nothing(tmp_path):
    (tmp_path / "victim").write_bytes(b"safe")
    torch.jit.save(torch.jit.script(RunsWhenLoaded(str(tmp_path / "victim"))), tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"clip\.pt holds no tensors"):
        read_state_dict(tmp_path / "clip.pt")
    assert (tmp_path / "victim").read_bytes() == b"safe"
    torch.jit.load(tmp_path / "clip.pt")  # TorchScript's own reader runs it: the attack is a real one
    assert (tmp_path / "victim").read_bytes() == b"AAAA"


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    class Reaching:
        def __reduce__(self):
            rebuild, (storage, *_) = torch.zeros(2).__reduce_ex__(2)
            return rebuild, (storage, 0, (1000,), (1,), False, OrderedDict())

    torch.save({"weight": Reaching(), "config": MakesFolder(tmp_path / "made")}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth cannot be read"):
        read_tensors(tmp_path / "m.pth")


def test_a_tensor_that_repeats_its_storage_is_refused(tmp_path):
    """A copy of it would take memory that the file does not have."""
    torch.save({"head.names": torch.zeros(1, dtype=torch.uint8).expand(2**50)}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth cannot be read .*claims to be larger than what is stored"):
        read_tensors(tmp_path / "m.pth")


def test_names_that_are_no_texts_are_refused(tmp_path):
    torch.save({("a", 1): torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"m\.pth .* name of a tensor in it is no text but a tuple"):
        read_state_dict(tmp_path / "m.pth")


def archive(path, pickled, compression=zipfile.ZIP_STORED, data=b"", **sizes):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", data)
    return path


@REFUSED
@pytest.mark.parametrize("pickled", [NESTED_KEY, DOUBLED, b"\x80\x05\x96" + b"\0\0\0\0\5\0\0\0abc."])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_bombs_are_refused_by_name(tmp_path, read, pickled, zipped):
    if zipped:
        path = archive(tmp_path / "m.pth", pickled)
    else:
        path = tmp_path / "m.pth"
        path.write_bytes(pickled)
    with pytest.raises(ValueError, match=r"m\.pth"):
        read(path)


@REFUSED
def test_compressed_tensors_are_refused_and_not_unpacked(tmp_path, read):
    content = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, content)
    pickled = zipfile.ZipFile(content).read("archive/data.pkl")
    path = archive(tmp_path / "bomb.pth", pickled, zipfile.ZIP_DEFLATED, bytes(400 * 2**20))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"bomb\.pth.*compressed"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


@REFUSED
def test_a_member_that_claims_more_than_the_file_has_is_refused(tmp_path, read):
    torch.save({"a": torch.zeros(100)}, tmp_path / "m.pth")
    content = bytearray((tmp_path / "m.pth").read_bytes())
    entry = content.rindex(b"m/data/0") - 46  # in the directory at the end: two sizes at 20 and 24
    assert struct.unpack_from("<II", content, entry + 20) == (400, 400)
    struct.pack_into("<II", content, entry + 20, 2**31, 2**31)
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.pth"):
        read(tmp_path / "m.pth")


@REFUSED
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth is no file, but a pipe"):
        read(tmp_path / "m.pth")


def test_whole_files_pass_the_check(tmp_path):
    for zipped in (True, False):
        torch.save({"a": torch.zeros(3), "b": [1]}, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
        check_torch_file(tmp_path / "m.pth")
