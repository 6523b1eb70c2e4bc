"""What every test needs."""

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before PyTorch, as train.py does: threads that spin while they wait take cores from the processes of a test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Asking whether there is a GPU would else keep processes forked later from using it.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import torch

from tests.extras import extra

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def all_threads() -> Iterator[None]:
    """What a run or a benchmark sets for this process is not for the tests after it: one core would idle."""
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture
def plain_user() -> Iterator[Path]:
    """A folder of a user whom permissions bind: root, whom they do not, takes another's rights meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        user = os.geteuid()
        if user == 0:
            nobody = 65534
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a server of this machine that speaks S3."""
    extra("s3fs")
    server = extra("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def bucket(request, monkeypatch) -> str:
    """The URL of an empty bucket, named as users name theirs."""
    import fsspec

    if request.param == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.setenv(f"AWS_{name}", "any")
    system = fsspec.filesystem(request.param)
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    return f"{request.param}://bucket"
