"""All keys of the configs: their types, defaults and what they mean.

`python -m utils.schema > docs/config.md` writes the table of them.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from utils.config import ConfigError, Limit, annotations, as_dict, key, type_words

Count = Annotated[int, Limit("a whole number from 1 on", lambda n: n >= 1)]
Counts = Annotated[list[Count], Limit("a list of whole numbers from 1 on", bool)]
Natural = Annotated[int, Limit("a whole number from 0 on", lambda n: n >= 0)]
Seed = Annotated[int, Limit("a whole number from 0 to 2^63 - 1", lambda n: 0 <= n < 2**63)]
Positive = Annotated[float, Limit("a number above 0", lambda x: x > 0)]
NotNegative = Annotated[float, Limit("a number from 0 on", lambda x: x >= 0)]
Share = Annotated[float, Limit("a number from 0 to 1", lambda x: 0 <= x <= 1)]
BelowOne = Annotated[float, Limit("a number from 0 to below 1", lambda x: 0 <= x < 1)]
Text = Annotated[str, Limit("a text", lambda text: bool(text.strip()))]
Name = Annotated[
    str, Limit("a name of letters, digits, _, - and .", lambda text: bool(re.fullmatch(r"[\w.-]+", text)))
]
Prompt = Annotated[str, Limit("a text with {} where the class goes", lambda text: "{}" in text)]
Prompts = Annotated[list[Prompt], Limit("a list of texts with {} where the class goes", bool)] | Text
Reader = Literal["pyav", "decord", "torchcodec", "cv2"]
Attention = Literal["auto", "sdpa", "flash", "efficient", "cudnn", "math"]


@dataclass(frozen=True, kw_only=True)
class ArchConfig:
    type: Text = key("TVTSv2_B_16", "the model: TVTSv2_B_32, TVTSv2_B_16, TVTSv2_H_14 or TVTSv2_Demo")
    start_from: Text = key("clip", "starting weights: clip, random, or the path of a TVTSv2 checkpoint")
    clip_weights: Text | None = key(
        None, "CLIP's weights, where they are not in CLIP/models or OpenCLIP/models"
    )
    num_frames: Count = key(12, "frames of a clip, and the most that the model takes")
    mask_ratio: BelowOne | None = key(
        None, "share of the patches that training leaves out; null: the model's"
    )
    trained_text_blocks: Natural | None = key(
        None, "the text tower's last blocks that train; null: the model's"
    )
    temporal_attention_init: Literal["zero", "random"] | None = key(
        None, "whether temporal attention starts as adding nothing; null: the model's"
    )
    attention: Attention = key(
        "auto",
        "auto: our Triton kernels on a GPU in half precision, else PyTorch's; the others are PyTorch's alone",
    )
    activation_checkpointing: Natural | Literal["mlp"] = key(
        0,
        "recomputed in backward, for memory: 0 nothing, mlp the activations of the MLPs, k every k-th block",
    )
    freeze_text_embeddings: bool = key(
        False,
        "false: trained at clip_lr, as in the release; true saves the gradients of frozen text blocks",
    )
    class_head: bool = key(
        False,
        "a classification head for the classes of data.train, trained by cross-entropy (docs/finetune.md)",
    )
    head_from_texts: Prompts | None = key(
        None,
        "of a class head: prompts, as of an evaluation, at whose texts of the classes it begins, which is "
        "zero-shot recognition, over loss.temperature; null: at random",
    )
    compile: bool | None = key(None, "torch.compile; null: on a GPU")


@dataclass(frozen=True, kw_only=True)
class DataSetConfig:
    """A data set; what is null is as the data set has it."""

    sparse: ClassVar[bool] = True

    type: Text = key(
        MISSING,
        "yttemporal, webvid, msrvtt, didemo, lsmdc, csv, narrated, hmdb51, ucf101, k400, labels or ssv2_mc",
    )
    root: Text = key(MISSING, "the folder of the videos or shards, or the URL of that of shards")
    format: Literal["files", "webdataset"] | None = key(None, "files (default), or webdataset for shards")
    files: Text | dict[str, str] | None = key(
        None,
        "of csv, narrated and labels: the list, or one for each split; null, of labels: a folder a class",
    )
    path_column: str | Natural | None = key(
        None, "of csv, narrated and labels: name or number of the column of paths (path)"
    )
    caption_column: str | Natural | None = key(
        None, "of csv: name or number of the column of captions (caption)"
    )
    start_column: str | Natural | None = key(
        None, "of csv: name or number of the column of starts of spans (start, where the list has it)"
    )
    end_column: str | Natural | None = key(None, "of csv: the same of their ends (end)")
    transcript_column: str | Natural | None = key(
        None, "of narrated: name or number of the column of transcripts (transcript)"
    )
    label_column: str | Natural | None = key(
        None, "of labels: name or number of the column of labels (label)"
    )
    classes: Text | None = key(
        None, "of labels: file of the classes' texts, one a line or {name: number}; null: as in the lists"
    )
    multi_label: bool | None = key(None, "of labels: whether a video may have several, a row each (false)")
    suffix: str | None = key(None, "of csv, narrated and labels: what the paths lack, such as .mp4")
    sep: str | None = key(
        None,
        "of csv, narrated and labels: what separates the columns; null: tab in .tsv, comma in other files",
    )
    num_clips: Count | None = key(
        None,
        "of yttemporal and narrated: clips, and texts, of a sample (4); of csv: spans of one, 4 to sort (1)",
    )
    transcript_cache: Text | None = key(
        None, "of yttemporal and narrated: folder that keeps aligned transcripts; null: none"
    )
    shard_cache: Text | None = key(
        None, "of shards behind a URL: folder for what was read, and their index (results/shard_cache)"
    )
    shard_cache_gb: NotNegative | None = key(None, "of shards behind a URL: GB that it may have (20)")
    cut: Text | None = key(None, "of msrvtt: which test videos (jsfusion)")
    fold: Count | None = key(None, "of hmdb51 and ucf101: which of the three splits (1)")

    def options(self) -> dict[str, Any]:
        """The options that were given, for `build_dataset`."""
        return as_dict(self)


@dataclass(frozen=True, kw_only=True)
class TrainingSetConfig(DataSetConfig):
    name: Name | None = key(
        None, "of the set in logs and metrics, where several are of one type; null: its type"
    )
    weight: Count | None = key(None, "of data.train: its batches in each joint step (1)")
    meta: Text | None = key(None, "folder of the lists, where it is not data.meta")
    reader: Reader | None = key(None, "as data.reader, for this set")
    timeout: Positive | None = key(None, "as data.read_timeout, for this set")
    cache_mb: NotNegative | None = key(None, "as data.cache_mb, for this set")
    mask_ratio: BelowOne | None = key(None, "as arch.mask_ratio, for this set")
    seed: Seed | None = key(None, "as seed, for this set")

    @property
    def called(self) -> str:
        """What logs and metrics call it."""
        return self.name or self.type

    def options(self) -> dict[str, Any]:
        return {key: value for key, value in super().options().items() if key != "weight"}


DEFAULT_SETS = [
    TrainingSetConfig(type="yttemporal", root="data/YTTemporal", transcript_cache="results/transcripts"),
    TrainingSetConfig(type="webvid", root="data/WebVid"),
]


def _distinct(sets: list[TrainingSetConfig]) -> bool:
    return len({each.called for each in sets}) == len(sets)


TrainingSets = Annotated[
    list[TrainingSetConfig],
    Limit(
        "a list of one set or more, each with a type of its own, or a name",
        lambda sets: bool(sets) and _distinct(sets),
    ),
]
ValidationSets = Annotated[
    list[TrainingSetConfig], Limit("a list of sets, each with a type of its own, or a name", _distinct)
]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    train: TrainingSets = key(DEFAULT_SETS, "the training sets; the first gives an epoch its length")
    val: ValidationSets = key(DEFAULT_SETS, "the validation sets")
    held_out: BelowOne = key(
        0.0,
        "share of the training videos that is kept from training; data.val, which then names sets of "
        "data.train, is these",
    )
    meta: Text = key("meta_data", "folder of the lists")
    batch_size: Count = key(12, "samples a process and step, also with trainer.accumulate")
    num_workers: Natural = key(8, "loading processes of each data set and GPU")
    reader: Reader = key(
        "pyav", "what decodes; decord as it is, and cv2, the release's for YT-Temporal, stands for pyav"
    )
    read_timeout: Positive | None = key(300, "seconds that a file may take; null: no limit")
    cache_mb: NotNegative = key(0, "memory of each loading process for decoded small videos, in MB")
    max_unreadable: Share = key(0.01, "share of unreadable videos that stops a run")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    temperature: Positive = key(0.05, "what similarities are divided by")
    sort_weight: NotNegative = key(2.0, "weight of the sorting loss")
    label_smoothing: BelowOne = key(0.0, "of a class head: share of a label that goes to all classes alike")
    mixup: NotNegative = key(
        0.0, "of a class head: two clips and their labels are mixed by Beta(mixup, mixup); 0: never"
    )
    gather: Literal["official", "exact", "lean"] = key(
        "official",
        "the contrastive loss over processes; lean: as exact, without all similarities on each GPU",
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    new_lr: NotNegative = key(1e-4, "learning rate of the parameters that CLIP does not have")
    clip_lr: NotNegative = key(1e-7, "learning rate of the parameters from CLIP")
    head_lr: NotNegative = key(1e-3, "learning rate of a class head")
    layer_decay: Annotated[float, Limit("a number above 0, up to 1", lambda x: 0 < x <= 1)] = key(
        1.0, "what a tower's learning rates are multiplied by from each block to the one below it"
    )
    weight_decay: NotNegative = key(0.05, "of AdamW; biases and norms have none")
    betas: tuple[BelowOne, BelowOne] = key((0.9, 0.999), "of AdamW")
    eps: Positive = key(1e-6, "of AdamW")
    max_grad_norm: Positive | None = key(None, "gradients are scaled down to this norm; null: never")


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    type: Text = key(
        "milestones", "milestones, or one of transformers' schedules: cosine, cosine_with_min_lr …"
    )
    milestones: list[Natural] = key([6, 8], "epochs after which the rates are multiplied by gamma")
    gamma: Positive = key(0.1, "see milestones")
    warmup_steps: Natural = key(0, "optimiser steps in which the rates rise from the start")
    options: dict[str, Any] = key({}, 'of a schedule of transformers, such as {"min_lr": 1e-6}')


@dataclass(frozen=True, kw_only=True)
class FSDPConfig:
    blocks_per_unit: Count = key(
        4, "blocks that gather their weights in one message; 1 keeps a fast GPU waiting"
    )
    reshard_after_forward: bool = key(False, "gather them once more for the backward, in less memory")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    device: Text | Natural | None = key(
        None, "cpu, cuda, cuda:1, or numbers of GPUs: 0,1; null: a GPU if there is one"
    )
    engine: Literal["ddp", "fsdp"] = key("ddp", "a copy of the model on each GPU, or a slice")
    fsdp: FSDPConfig = key(FSDPConfig(), "")
    precision: Literal["bf16", "fp16", "fp32", "fp8"] = key(
        "bf16",
        "bf16 (fp32 where the device has no fast bf16), fp16 with loss scaling, fp32, or fp8 in the video "
        "tower's blocks on GPUs that have it (docs/fp8.md)",
    )
    accumulate: Count = key(1, "parts in which a batch goes through the model")
    ema_decay: BelowOne | None = key(
        None,
        "of the moving average of the weights that validation, checkpoints' users and model_best.pth see, "
        "such as 0.999; null: none",
    )
    epochs: Count = key(10, "how long to train")
    max_steps: Count | None = key(None, "optimiser steps after which to stop, if that is earlier")
    validate_at_start: bool = key(True, "whether to validate, and evaluate, before the first step")
    validate_every: Count = key(1, "epochs from one validation to the next")
    evaluate: list[Text] = key(
        [], "configs of downstream/configs to evaluate during the training, zero-shot (docs/long-runs.md)"
    )
    evaluate_every: Count = key(1, "epochs from one evaluation to the next")
    save_dir: Text = key("results/TVTSv2", "the run's folder is save_dir/name; from the current directory")
    bucket: Text | None = key(
        None,
        "URL, such as s3://bucket/runs: the run's folder is copied to bucket/name, and fetched from there",
    )
    save_every_steps: Count | None = key(
        None, "optimiser steps between checkpoints within an epoch; null: none"
    )
    keep_last: Count | None = key(3, "checkpoints to keep, the newest; null: all")
    monitor: (
        Annotated[
            str, Limit("'max' or 'min' and a metric, such as 'max webvid_t2v_R1'", lambda t: _is_monitor(t))
        ]
        | None
    ) = key("max yttemporal_order_accuracy", "what makes model_best.pth the best; null: there is none")
    log_every_s: NotNegative = key(5, "seconds between lines of the log")
    tensorboard: bool = key(True, "whether to write for TensorBoard")
    wandb: Text | None = key(None, "a project of Weights & Biases (pip install wandb)")
    profile_steps: Natural = key(0, "steps to profile into the run's folder, as train.py --profile does")
    threads: Count | None = key(None, "PyTorch's threads on the CPU; null: as PyTorch has it")
    timeout_s: Positive = key(
        600,
        "seconds after which a process that the others wait for ends the run; with fsdp, more than writing a "
        "checkpoint",
    )


def _is_monitor(text: str) -> bool:
    mode, _, metric = text.partition(" ")
    return mode in ("max", "min") and bool(metric.strip())


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """What train.py takes: to pre-train and to fine-tune."""

    name: Text = key("TVTSv2", "of the run, and of its folder below trainer.save_dir")
    seed: Seed = key(0, "of all that is random")
    arch: ArchConfig = key(ArchConfig(), "")
    data: DataConfig = key(DataConfig(), "")
    loss: LossConfig = key(LossConfig(), "")
    optimizer: OptimizerConfig = key(OptimizerConfig(), "")
    lr_scheduler: SchedulerConfig = key(SchedulerConfig(), "")
    trainer: TrainerConfig = key(TrainerConfig(), "")

    def check(self) -> None:
        """Raises ConfigError where keys contradict each other."""
        if not self.arch.class_head and (self.loss.mixup or self.loss.label_smoothing):
            raise ConfigError("loss.mixup and loss.label_smoothing are of a class head: set arch.class_head")
        if not self.arch.class_head and self.arch.head_from_texts is not None:
            raise ConfigError("arch.head_from_texts is of a class head: set arch.class_head")
        if self.data.held_out:
            for i, entry in enumerate(self.data.val):
                if entry not in self.data.train:
                    raise ConfigError(
                        f"data.held_out validates on training videos: data.val.{i}, of type {entry.type}, "
                        "must be a set of data.train, with the same keys"
                    )
        if self.trainer.ema_decay is not None and self.trainer.engine == "fsdp":
            raise ConfigError("trainer.ema_decay needs trainer.engine ddp: with fsdp no rank has the weights")


TOP_ONLY = dict.fromkeys(
    ("meta", "num_frames", "reader", "read_timeout"), "it is a key of the config itself, not of data"
)


@dataclass(frozen=True, kw_only=True)
class EvaluationSetConfig(DataSetConfig):
    elsewhere: ClassVar[dict[str, str]] = TOP_ONLY

    split: Literal["train", "val", "test"] | None = key(None, "whose videos to evaluate (test)")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    neighbours: Counts = key([20, 10, 100, 200], "of knn: numbers of neighbours; the first is the main one")
    temperature: Positive = key(0.07, "of knn: what cosines are divided by before they become votes")
    shots: Counts = key([16, 8, 4, 2, 1], "of few-shot: training videos a class; the first is the main one")
    draws: Count = key(5, "of few-shot: how often they are drawn")
    learning_rates: Annotated[list[Positive], Limit("a list of numbers above 0", bool)] = key(
        [5e-3, 3e-3, 1e-3, 3e-4, 1e-4], "of attentive: of each head"
    )
    weight_decay: NotNegative = key(0.01, "of attentive: of AdamW")
    epochs: Count = key(20, "of attentive: how long to train")
    batch_size: Count = key(64, "of attentive: videos a step")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What test.py and the commands of downstream/ take."""

    task: Literal["retrieval", "recognition", "multiple_choice"] = key(MISSING, "the protocol")
    name: Text = key(MISSING, "of the data set, in tables and folders")
    data: EvaluationSetConfig = key(MISSING, "the data set")
    meta: Text = key("meta_data", "folder of the lists")
    source: str = key("", "where to get the data set, for messages")
    num_frames: Count | None = key(None, "frames of a clip; null: as many as the model was trained with")
    sliding_window_stride: Annotated[
        int, Limit("at least 1, or -1 for no windows", lambda n: n == -1 or n >= 1)
    ] = key(-1, "average each video over windows shifted by 0, S, 2S … frames")
    segments: Count = key(1, "equal parts of a video, each seen as a clip of its own (docs/evaluate.md)")
    crops: Annotated[int, Limit("1 or 3", lambda n: n in (1, 3))] = key(
        1, "of each clip: 1, the centre, or 3, side by side along the longer side"
    )
    dsl_temperature: Annotated[float, Limit("a number from 0.003 on", lambda x: x >= 0.003)] = key(
        0.01, "of the dual softmax; with less its weights of some cosines would be no numbers but zeros"
    )
    prompts: Prompts = key(
        ["a person {}"],
        "texts of a class, whose embeddings are averaged: a list, a set of downstream/prompts.json "
        "(clip-kinetics, clip-ucf101, internvideo), or a file with one a line",
    )
    class_names: Text | None = key(
        None, "file with the names of the classes, one a line, in the order of their numbers; null: the set's"
    )
    probe: ProbeConfig = key(ProbeConfig(), "")
    allow_overlap: bool = key(False, "of probes: whether videos to test on may be among those to train on")
    batch_size: Count = key(48, "clips at once, on each GPU")
    num_workers: Natural | None = key(None, "processes that read videos, for each GPU; null: by the cores")
    reader: Reader = key(
        "pyav", "what decodes; decord as it is, and cv2, the release's for YT-Temporal, stands for pyav"
    )
    read_timeout: Positive | None = key(300, "seconds that a file may take; null: no limit")
    precision: Literal["fp32", "bf16", "fp8"] = key(
        "fp32", "fp32, without TF32, the faster bf16, or fp8, faster still on GPUs that have it"
    )


def rows(kind: type, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of all keys of a config, those of its sections among them."""
    for name, annotation in annotations(kind).items():
        plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
        if is_dataclass(plain):
            yield from rows(plain, f"{prefix}{name}.")  # type: ignore[arg-type]
            continue
        one = next(each for each in fields(kind) if each.name == name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        shown = "none: must be given" if default is MISSING else f"`{json.dumps(as_dict(default))}`"
        yield f"{prefix}{name}", type_words(annotation), shown, one.metadata["meaning"]


def table(kind: type, prefix: str = "") -> str:
    """The keys of a config as a table in Markdown."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {words} | {default} | {meaning} |"
        for name, words, default, meaning in rows(kind, prefix)
    ]
    return "\n".join(lines)


def page() -> str:
    """docs/config.md."""
    return f"""# Config keys

A config is a JSON file that says what differs from the defaults below; `--set key=value` on the command line
comes last, as often as needed: `--set trainer.epochs=3 --set data.train.1.root=/disk/webvid`. An unknown key,
or a value of another type, is an error that names it. `python -m utils.schema > docs/config.md` writes this
page.

## Pre-training and fine-tuning: `train.py`, configs/

{table(PretrainingConfig)}

Each item of `data.train` and `data.val`; what is null is as the data set has it:

{table(TrainingSetConfig)}

## Evaluation: `test.py`, downstream/configs/

{table(EvaluationConfig)}
"""


if __name__ == "__main__":
    print(page(), end="")
