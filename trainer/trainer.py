"""The training loop, one for every variant and purpose: joint steps, validation, checkpoints, resuming."""

import gc
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data_loader.failures import UnreadableCounter
from data_loader.loader import JointLoader
from model import TVTSv2, is_new_parameter
from trainer import optim
from trainer.checkpoint import checkpoint_path
from trainer.ema import WeightAverage
from trainer.engine import build_engine, choose_precision
from trainer.evaluation import Evaluations
from trainer.metrics import Monitor, RunLog, StepMeter, write_settings
from trainer.profiling import Profiler
from trainer.rank_times import RankTimes
from trainer.resume import state_of, torchruns
from trainer.saving import CheckpointWriter
from trainer.signals import AsyncAllReduce, Stopped, StopSignal, ending_together
from trainer.step import TrainStep, check_losses, to_device, without_texts
from trainer.validation import metric_names, validate
from utils.config import as_dict
from utils.processes import DistContext
from utils.schema import PretrainingConfig

logger = logging.getLogger(__name__)


class Trainer:
    """Pre-trains or fine-tunes a TVTSv2: by the contrastive and the sorting loss, or by that of a class head.

    A joint step takes a batch of each training set in turn, or its `weight` of them, with an optimiser step
    after each batch, as the release does. `global_step` counts the optimiser steps; a checkpoint is always
    between two joint steps.

    Args:
        config: the resolved pre-training config.
        model: a TVTSv2 on the CPU or the device, with its frozen part already frozen.
        train_loader: alternates the training sets' batches.
        val_loaders: one loader a validation set, by name.
        run_dir: where checkpoints, metrics and logs of the run go.
        context: this process's place among the run's processes.
        lock: on the run's folder, held as long as the trainer lives.

    Raises:
        ConfigError: `trainer.monitor` names a metric that validation does not give, or `trainer.evaluate` a
            config that cannot be used.
    """

    def __init__(
        self,
        config: PretrainingConfig,
        model: TVTSv2,
        train_loader: JointLoader,
        val_loaders: Mapping[str, DataLoader],
        run_dir: Path,
        context: DistContext,
        lock: IO[str] | None = None,
    ):
        self.config, self.context, self.run_dir, self.lock = config, context, run_dir, lock
        self.train_loader, self.val_loaders = train_loader, val_loaders
        self.precision = choose_precision(config.trainer.precision, context.device)
        engine, fsdp = config.trainer.engine, as_dict(config.trainer.fsdp)
        self.engine = build_engine(engine, model, context, self.precision, config.arch.compile, **fsdp)
        self.model = self.engine.model
        groups = optim.parameter_groups(self.model, is_new_parameter, config.optimizer)
        logger.info("trained parameters, by group:\n%s", optim.describe_groups(groups))
        self.optimizer = optim.build_optimizer(groups, config.optimizer)

        self.epochs = train_loader.epochs = config.trainer.epochs
        self.steps_per_epoch = train_loader.steps * len(train_loader.turns)
        self.epoch = self.global_step = 0
        self.total_steps = self.steps_with(self.epochs * self.steps_per_epoch)
        if config.lr_scheduler.warmup_steps >= self.total_steps:
            logger.warning(
                "lr_scheduler.warmup_steps is %d, but the run has %d steps: the learning rate never rises to "
                "what is set; set fewer, such as --set lr_scheduler.warmup_steps=%d, or train longer",
                config.lr_scheduler.warmup_steps,
                self.total_steps,
                self.total_steps // 10,
            )
        scheduler = optim.build_scheduler(
            self.optimizer, config.lr_scheduler, self.steps_per_epoch, self.total_steps
        )
        self.scaler = self.precision.scaler()
        self.train_step = TrainStep(
            self.engine, self.optimizer, scheduler, self.scaler, self.precision, context, config
        )
        self.unreadable = UnreadableCounter(config.data.max_unreadable)
        known = metric_names(val_loaders, self.model.head is not None)
        monitor = config.trainer.monitor
        self.monitor = Monitor(monitor, run_dir, known) if monitor and known else None
        self.evaluations: Evaluations | None = None
        if config.trainer.evaluate:
            autocast = self.precision.autocast
            self.evaluations = Evaluations(config, self.model, context, autocast, run_dir)
        decay = config.trainer.ema_decay
        self.average = None if decay is None else WeightAverage(self.model, decay)
        self.stop, self.all_reduce = StopSignal(), AsyncAllReduce(context)
        settings = config.trainer
        self.writer = CheckpointWriter(context, self.engine.sharded, settings.keep_last, settings.timeout_s)
        self.ranks = RankTimes(self.model, context)
        self.run_log: RunLog | None = None  # of rank 0, while it trains
        self.profiler: Profiler | None = None  # the same
        self.start = 0, 0.0  # step and time
        self.gc_frozen = False

    # ------------------------------------------------------------------ the run

    def train(self) -> dict[str, float]:
        """Run to the last epoch (or `max_steps`), from wherever `resume` put the trainer.

        Returns:
            The last validation's metrics.

        Raises:
            Stopped: a signal asked for it; a checkpoint holds everything done so far.
            FloatingPointError: the loss became NaN or infinite; the last checkpoint is intact.
            TooManyUnreadable: more training videos were unreadable than `data.max_unreadable` allows.
        """
        started_by = torchruns(self.context)
        if self.context.is_main:
            self.run_log = RunLog(self.run_dir, self.config, self.global_step)
            write_settings(self.run_dir, self.config, self.global_step, started_by)
            if steps := self.config.trainer.profile_steps:
                self.profiler = Profiler(self.run_dir / "profile", steps, self.context.device)
        with self.stop, ending_together(self.context), self.writer.bucket or nullcontext():
            try:
                with self.writer:  # the run ends when its last checkpoint is whole
                    if self._start_may_be_best():
                        self._save()
                    metrics = self._measure()
                    self._log_plan()
                    self.start = self.global_step, time.monotonic()
                    while self.epoch < self.epochs and self.global_step < self.total_steps:
                        self._train_epoch()
                        metrics = self._end_epoch() or metrics
            finally:
                gc.unfreeze()
                self.gc_frozen = False
                for each in (self.profiler, self.run_log):
                    if each is not None:
                        each.close()
        return metrics

    def _start_may_be_best(self) -> bool:
        """Whether held-out videos choose from the weights of the start, too.

        Not of a sharded model: to write an optimiser's state before the first step, PyTorch would take one.
        """
        validated = self.global_step == 0 and self.config.trainer.validate_at_start
        return validated and self.config.data.held_out > 0 and not self.engine.sharded

    def steps_with(self, left: int) -> int:
        """Optimiser steps of the whole run, if its epochs have `left` more.

        A run ends between two joint steps, as checkpoints are: `max_steps` is rounded up to that.
        """
        most = self.config.trainer.max_steps
        if most is not None:
            batches = len(self.train_loader.turns)
            left = min(left, math.ceil(max(0, most - self.global_step) / batches) * batches)
        return self.global_step + left

    def _log_plan(self) -> None:
        """Log how sets are mixed, and where the run will end if not where the config's numbers suggest."""
        logger.info("training sets of a joint step:\n%s", self.train_loader)
        most, done = self.config.trainer.max_steps, None
        if self.epoch >= self.epochs:
            done = f"{self.epoch} epochs are done and trainer.epochs is {self.epochs}"
        elif self.global_step >= self.total_steps:
            done = f"{self.global_step} steps are done and trainer.max_steps is {most}"
        elif most is not None and self.total_steps > most:
            logger.info("trainer.max_steps is %d; its joint step ends at step %d", most, self.total_steps)
        if done:
            logger.info("nothing left to train: %s; set it higher to go on", done)

    def _train_epoch(self) -> None:
        self.model.train()
        meter = StepMeter(self.model, self.context)
        last_log = time.monotonic()
        bar = tqdm(
            total=self.steps_per_epoch,
            initial=self.steps_per_epoch - len(self.train_loader),
            desc=f"epoch {self.epoch + 1}/{self.epochs}",
            unit="step",
            disable=None if self.context.is_main else True,  # None: only where a person is watching
        )
        with bar, logging_redirect_tqdm():
            for i, batch in meter.timed(self.train_loader):
                self.ranks.waited += meter.last_wait
                self.unreadable.update(batch, self.train_loader.names[i])
                if self.model.head is not None:
                    batch = without_texts(batch)
                batch = to_device(batch, self.context.device)
                rates = optim.learning_rates(self.optimizer)
                losses, grad_norm = self.train_step(batch)
                self.global_step += 1
                if self.average is not None:
                    self.average.update(self.global_step)
                meter.add(self.global_step, self.train_loader.names[i], batch, losses, grad_norm, rates)
                bar.update()
                if self.profiler is not None:
                    self.profiler.step()
                if time.monotonic() - last_log >= self.config.trainer.log_every_s:
                    last_log = time.monotonic()
                    self._log(meter, bar)
                if self.train_loader.turn == 0:
                    self._freeze_long_lived()
                    if self._after_joint_step(meter, bar):
                        break
            self._log(meter, bar)

    def _freeze_long_lived(self) -> None:
        """Freeze long-lived objects, compiled code included: a full collection stalls the GPU for 0.2 s."""
        if not self.gc_frozen:
            gc.collect()
            gc.freeze()
            self.gc_frozen = True

    def _after_joint_step(self, meter: StepMeter, bar: tqdm) -> bool:
        """Save if it is time to, stop if a signal came. Returns whether the run has all its steps."""
        if self.global_step >= self.total_steps:
            return True
        stop, read, failed, *times = self.all_reduce(self._counts())
        self.ranks.add(times)
        self.unreadable.raise_if_too_many(read, failed)
        self.writer.raise_failure()
        every = self.config.trainer.save_every_steps
        passed = every and self.global_step % every < len(self.train_loader.turns)
        if stop or (passed and len(self.train_loader) > 0):
            self._log(meter, bar)  # checks the losses: a checkpoint after a NaN would be worthless
            self._save()
        if stop:
            self._end_by_signal()
        return False

    def _counts(self) -> list[int]:
        """What the ranks add up: whether one was told to stop, videos read and failed, and their times."""
        return [self.stop.received, self.unreadable.read, self.unreadable.failed, *self.ranks.own()]

    # ------------------------------------------------------------------ between epochs

    def _end_epoch(self) -> dict[str, float]:
        """Save first, then validate: whatever happens to the validation, the epoch is not lost."""
        self.all_reduce.wait()
        stop, read, failed, *times = self.context.sum(self._counts())
        self.ranks.add(times)
        if self.unreadable.failed or self.unreadable.problems:
            logger.info("epoch %d: %s", self.epoch + 1, self.unreadable.summary())
        if len(self.train_loader) == 0:
            self.epoch += 1
            self.train_loader.set_epoch(self.epoch)
        self._save()
        self.unreadable.raise_if_too_many(read, failed, epoch_over=True)
        self.unreadable.start_epoch()
        if stop:
            self._end_by_signal()
        return self._measure()

    def _measure(self) -> dict[str, float]:
        """Validate and evaluate, if it is time to and not done yet; the validation's metrics."""
        settings = self.config.trainer
        metrics = self._validate() if self._is_missing("validation", settings.validate_every) else {}
        if self.evaluations is not None and self._is_missing("evaluation", settings.evaluate_every):
            self._evaluate(self.evaluations)
        return metrics

    def _is_missing(self, kind: str, every: int) -> bool:
        """Whether to validate, or to evaluate, now; also where the run ended while it did."""
        if self.global_step == 0:
            return self.config.trainer.validate_at_start
        at_end = self.global_step >= self.total_steps
        due = at_end or (self.train_loader.step == 0 and self.epoch % every == 0)
        done = self.run_log is not None and self.run_log.has(kind, self.global_step)
        return due and not self.context.broadcast_object(done)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Within, a rank may call the model on its own, and the weights are the averaged ones, if any."""
        averaged = nullcontext() if self.average is None else self.average.in_place()
        with averaged, self.engine.whole():
            yield

    def _validate(self) -> dict[str, float]:
        with self._measured():
            autocast, show = self.precision.autocast, None
            if self.run_log is not None and self.run_log.boards:
                show = partial(self.run_log.show, self.global_step)
            metrics = validate(self.model, self.val_loaders, self.context, autocast, self.stop, show)
        if metrics is None:
            self._end_by_signal()
        if self.run_log is not None and metrics:
            row = {"step": self.global_step, "epoch": self.epoch, **metrics}
            if self.monitor is not None:
                self.writer.submit(self.monitor.keep_if_best, metrics, self.checkpoint)
            self.writer.submit(self.run_log.write, "validation", [row])  # last: else the best might be lost
        return metrics

    def _evaluate(self, evaluations: Evaluations) -> None:
        """Embed on all ranks; the thread of the checkpoints measures and writes it down."""
        with self._measured():
            embedded = evaluations.embed(self.global_step)
        if self.run_log is not None and embedded:
            place = {"step": self.global_step, "epoch": self.epoch}
            self.writer.submit(evaluations.measure, embedded, place, self.run_log)
        if self.context.sum([self.stop.received])[0]:
            self._end_by_signal()

    def _end_by_signal(self) -> NoReturn:
        cause = "since torchrun has ended" if self.stop.abandoned else "by a signal"
        raise Stopped(f"stopped {cause} at step {self.global_step}; go on with --resume auto")

    def _log(self, meter: StepMeter, bar: tqdm) -> None:
        """Write down the steps since the last call. Raises FloatingPointError if a loss is no number."""
        rows, summary = meter.flush()
        if self.run_log is not None and rows:
            rows[-1].update(self.ranks.flush())
            self.run_log.write("step", [{"step": row["step"], "epoch": self.epoch, **row} for row in rows])
            bar.set_postfix_str(summary)
            step, since = self.start  # validations count, too: they will go on taking their share
            seconds_a_step = (time.monotonic() - since) / max(1, self.global_step - step)
            left = timedelta(seconds=round(seconds_a_step * (self.total_steps - self.global_step)))
            logger.info("step %d/%d  %s  %s left", self.global_step, self.total_steps, summary, left)
        check_losses(rows, self.scaler, self.global_step, self.run_dir)

    # ------------------------------------------------------------------ checkpoints

    def _save(self) -> None:
        """Have a checkpoint written: one file by rank 0, or a folder of all ranks' slices."""
        self.writer.save(state_of(self), self.checkpoint)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of where the run is now."""
        step, sharded = self.train_loader.step, self.engine.sharded
        return checkpoint_path(self.run_dir, self.epoch, step, sharded)
