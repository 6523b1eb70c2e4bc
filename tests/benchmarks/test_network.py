"""What is counted on paper is what DDP and FSDP2 send, in a group whose other ranks are made up."""

import json
import subprocess
import sys
from collections import Counter

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import network
from benchmarks.network import Message, messages, step_seconds
from benchmarks.train_step import random_batch
from model import create_model
from model.loss import contrastive_loss, sort_loss
from trainer.engine import build_engine, choose_precision
from trainer.step import embeddings
from utils.config import REPOSITORY
from utils.processes import DistContext

KINDS = {
    "allreduce_": "all-reduce",
    "_allgather_base_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
}
W, BATCH, GATHER = 4, 2, "exact"


class Sent(TorchDispatchMode):
    """Adds up the bytes of each kind of message: of the sum, or of all parts together."""

    def __init__(self):
        super().__init__()
        self.bytes = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        namespace, name = function._schema.name.split("::")
        if namespace == "c10d" and name in KINDS:
            # the input of a sum and of what is scattered, the output of what is gathered
            tensors = args[1] if name == "_reduce_scatter_base_" else args[0]
            tensors = tensors if isinstance(tensors, list) else [tensors]
            self.bytes[KINDS[name]] += sum(x.nbytes for x in tensors)
        return function(*args, **(kwargs or {}))


def in_buckets(counted, bucket):
    counted["all-reduce"] += bucket.buffer().nbytes
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@pytest.fixture
def context():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=W)
    yield DistContext(0, W, 0, torch.device("cpu"))
    dist.destroy_process_group()


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_the_bytes_on_paper_are_those_that_are_sent(engine, context):
    model = create_model("TVTSv2_Demo")
    found = messages(model, engine, GATHER, BATCH, W)
    precision = choose_precision("fp32", context.device)
    built = build_engine(engine, model, context, precision, compiled=False)
    sent = Sent()
    if engine == "ddp":  # its messages do not pass through Python
        built.wrapped.register_comm_hook(sent.bytes, in_buckets)
    batch = random_batch(model.variant, BATCH, 2, 4, 8, context.device)
    with sent:
        output = built(batch)
        loss = contrastive_loss(*embeddings(output), 0.05, GATHER)
        (loss + sort_loss(output.order_logits)).backward()  # so that all weights have gradients
    on_paper = Counter()
    for message in found:
        # in float32 here
        in_fp32 = (
            sum(p.numel() for p in model.parameters()) * 4 if message.name == "weights" else message.payload
        )
        on_paper[message.kind] += in_fp32
    for kind, number in on_paper.items():
        # slices of odd shapes are padded, a little
        assert sent.bytes[kind] == pytest.approx(number, rel=0.05), kind


def test_what_travels_hides_behind_its_share_of_the_arithmetic():
    gradients = Message("gradients", "all-reduce", 400, 2 / 3)
    loss = Message("embeddings", "all-gather", 4, 0)
    assert gradients.bytes_sent(4) == 600 and loss.bytes_sent(4) == 3
    assert step_seconds([gradients, loss], 4, 3.0, 300.0) == (3.01, 5.01)  # 2 s of both
    assert step_seconds([gradients], 4, 3.0, 100.0) == (7.0, 9.0)


def test_the_table(tmp_path, capsys):
    file = tmp_path / "figures.json"
    options = ["--arch", "TVTSv2_B_16", "--batch-size", "12", "--gpus", "80", "--json", str(file)]
    assert network.main(options) == 0
    sent, steps = json.loads(file.read_text())["tables"].values()
    with FakeTensorMode():
        model = create_model("TVTSv2_B_16")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sent[0]["GB a GPU"] == pytest.approx(2 * 79 / 80 * 4 * trained / 1e9)
    assert [(row["name"], row["limit"]) for row in steps] == [
        ("400 Gb/s a host", "network"),
        ("400 Gb/s a GPU", "arithmetic"),
        ("all by NVLink", "arithmetic"),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus", "0"], "must be more than 0"),
        (["--arch", "TVTSv2_Demo"], "give --batch-size and --rate"),
        (["--measure", "--device", "cpu"], "torchrun"),
    ],
)
def test_what_cannot_be_counted(options, said, capsys):
    with pytest.raises(SystemExit) as ended:
        network.main(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.heavy
def test_messages_and_the_loss_are_measured_between_processes(tmp_path):
    file = tmp_path / "figures.json"
    own = ["benchmarks/network.py", "--measure", "--device", "cpu", "--arch", "TVTSv2_Demo"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *own]
    options = ["--batch-size", "3", "--largest", str(2**21), "--json", str(file)]
    subprocess.run([*command, *options], check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    rates, loss = json.loads(file.read_text())["tables"].values()
    for row, size in zip(rates, (2**20, 2**24, 2**21), strict=True):
        assert row["GB/s of a ring"] == pytest.approx(size / row["ms"] / 1e6)  # of two processes: all of it
    assert [row["name"] for row in loss] == ["official", "exact", "lean"]
    assert all(row["ms"] > 0 for row in loss)
