"""The pre-training loop, one for every variant: joint steps, validation, checkpoints, resuming."""

import gc
import logging
import math
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, NoReturn

from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data_loader.failures import UnreadableCounter
from data_loader.loader import JointLoader
from model import is_new_parameter
from trainer.checkpoints import checkpoint_path, remove_old, save_atomically
from trainer.engine import build_engine, choose_precision
from trainer.meter import StepMeter
from trainer.monitor import Monitor
from trainer.optim import (
    build_optimizer,
    build_scheduler,
    describe_groups,
    learning_rates,
    parameter_groups,
)
from trainer.resume import collect_state, resume
from trainer.run_log import RunLog, write_settings
from trainer.sharded import save_sharded
from trainer.signals import LateSum, Stopped, StopSignal
from trainer.step import TrainStep, to_device
from trainer.validation import metric_names, validate
from utils.config import ConfigError, nearest_key
from utils.processes import DistContext
from utils.schema import PretrainingConfig

logger = logging.getLogger(__name__)


class Trainer:
    """Pre-trains a TVTSv2 with the contrastive and the sorting loss.

    A joint step takes a batch of each training set in turn, with an optimiser step after each batch, as the
    release does. `global_step` counts the optimiser steps; a checkpoint is always between two joint steps.

    Args:
        config: the resolved pre-training config.
        model: a TVTSv2 on the CPU or the device, with its frozen part already frozen.
        train_loader: alternates the training sets' batches.
        val_loaders: one loader a validation set, by name.
        run_dir: where checkpoints, metrics and logs of the run go.
        context: this process's place among the run's processes.
    """

    def __init__(
        self,
        config: PretrainingConfig,
        model: nn.Module,
        train_loader: JointLoader,
        val_loaders: Mapping[str, Any],
        run_dir: Path,
        context: DistContext,
    ):
        self.config, self.context, self.run_dir = config, context, run_dir
        self.train_loader, self.val_loaders = train_loader, val_loaders
        self.precision = choose_precision(config.trainer.precision, context.device)
        self.engine = build_engine(
            config.trainer.engine,
            model,
            context,
            self.precision,
            config.arch.compile,
            blocks_per_unit=config.trainer.fsdp.blocks_per_unit,
            reshard_after_forward=config.trainer.fsdp.reshard_after_forward,
        )
        self.model = self.engine.model
        self.epochs = config.trainer.epochs
        self.steps_per_epoch = train_loader.steps * len(train_loader.loaders)
        self.epoch = self.global_step = 0
        self.total_steps = self.steps_with(self.epochs * self.steps_per_epoch)
        groups = parameter_groups(self.model, is_new_parameter, config.optimizer)
        logger.info("trained parameters, by group:\n%s", describe_groups(groups))
        self.optimizer = build_optimizer(groups, config.optimizer)
        self.scheduler = build_scheduler(
            self.optimizer, config.lr_scheduler, self.steps_per_epoch, self.total_steps
        )
        if config.lr_scheduler.warmup_steps >= self.total_steps:
            logger.warning(
                "lr_scheduler.warmup_steps is %d, but the run has %d steps: the learning rate never rises to "
                "what is set",
                config.lr_scheduler.warmup_steps,
                self.total_steps,
            )
        self.scaler = self.precision.scaler()
        self.train_step = TrainStep(
            self.engine, self.optimizer, self.scheduler, self.scaler, self.precision, context, config
        )
        self.unreadable = UnreadableCounter(config.data.max_unreadable)
        self.monitor = self._monitor()
        self.stop, self.late_sum = StopSignal(), LateSum(context)
        self.run_log: RunLog | None = None
        self.began = 0, 0.0  # step and time
        self.lock: IO[str] | None = None  # on the run's folder, until this process ends
        self.lasting_set_aside = False  # whether `_set_lasting_aside` has been at work

    def _monitor(self) -> Monitor | None:
        """What chooses the best checkpoint. Raises ConfigError if validation will have no such metric."""
        text, known = self.config.trainer.monitor, metric_names(self.val_loaders)
        if text is None or not known:
            return None
        monitor = Monitor(text, self.run_dir)
        if monitor.name not in known:
            raise ConfigError(
                f"trainer.monitor is {text!r}, but validation has no metric {monitor.name!r}; "
                f"{nearest_key(monitor.name, known)} (null: no best checkpoint)"
            )
        return monitor

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
        if self.context.is_main:
            self.run_log = RunLog(self.run_dir, self.config, self.global_step)
            write_settings(self.run_dir, self.config, self.global_step)
        metrics: dict[str, float] = {}
        with self.stop:
            try:
                if self._validation_is_missing():
                    metrics = self._validate()
                self._log_plan()
                self.began = self.global_step, time.monotonic()
                while self.epoch < self.epochs and self.global_step < self.total_steps:
                    self._train_epoch()
                    metrics = self._end_epoch() or metrics
            finally:
                gc.unfreeze()
                self.lasting_set_aside = False
                if self.run_log is not None:
                    self.run_log.close()
        return metrics

    def steps_with(self, left: int) -> int:
        """Optimiser steps of the whole run, if its epochs have `left` more.

        A run ends between two joint steps, as checkpoints are: `max_steps` is rounded up to that.
        """
        most = self.config.trainer.max_steps
        if most is not None:
            sets = len(self.train_loader.loaders)
            left = min(left, math.ceil(max(0, most - self.global_step) / sets) * sets)
        return self.global_step + left

    def _log_plan(self) -> None:
        """Say what a person may not expect of the run's length."""
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
                self.unreadable.update(batch)
                batch = to_device(batch, self.context.device)
                rates = learning_rates(self.optimizer)
                losses, grad_norm = self.train_step(batch)
                self.global_step += 1
                meter.add(self.global_step, self.train_loader.names[i], batch, losses, grad_norm, rates)
                bar.update()
                if time.monotonic() - last_log >= self.config.trainer.log_every_s:
                    last_log = time.monotonic()
                    self._log(meter, bar)
                if i == len(self.train_loader.loaders) - 1:
                    self._set_lasting_aside()
                    if self._after_joint_step(meter, bar):
                        break
            self._log(meter, bar)

    def _set_lasting_aside(self) -> None:
        """Once a run, when compiled code is there, too: take what there is out of the search for garbage.

        To go through it takes Python a fifth of a second or more each time, and the GPU runs out of work.
        """
        if not self.lasting_set_aside:
            gc.collect()
            gc.freeze()
            self.lasting_set_aside = True

    def _after_joint_step(self, meter: StepMeter, bar: tqdm) -> bool:
        """Save if it is time to, stop if a signal came. Returns whether the run has all its steps."""
        if self.global_step >= self.total_steps:
            return True
        counter = self.unreadable
        stop, *pooled = self.late_sum([self.stop.received, counter.read, counter.failed])
        counter.judge(*pooled)
        every = self.config.trainer.save_every_steps
        passed = every and self.global_step % every < len(self.train_loader.loaders)
        if stop or (passed and len(self.train_loader) > 0):
            self._log(meter, bar)  # looks at the losses first: a checkpoint after a NaN would be worthless
            self._save()
        if stop:
            self._end_by_signal()
        return False

    # ------------------------------------------------------------------ between epochs

    def _end_epoch(self) -> dict[str, float]:
        """Save first, then validate: whatever happens to the validation, the epoch is not lost."""
        self.late_sum.collect()
        counts = [self.stop.received, self.unreadable.read, self.unreadable.failed]
        stop, read, failed = self.context.sum(counts)
        if self.unreadable.failed or self.unreadable.problems:
            logger.info("epoch %d: %s", self.epoch + 1, self.unreadable.summary())
        if len(self.train_loader) == 0:
            self.epoch += 1
            self.train_loader.set_epoch(self.epoch)
        self._save()
        self.unreadable.judge(read, failed, epoch_over=True)
        self.unreadable.start_epoch()
        if stop:
            self._end_by_signal()
        return self._validate() if self._validation_is_due() else {}

    def _validation_is_due(self) -> bool:
        if self.global_step >= self.total_steps:
            return True
        return self.train_loader.step == 0 and self.epoch % self.config.trainer.validate_every == 0

    def _validation_is_missing(self) -> bool:
        """Whether to validate before training: at the start, or where the run ended in its validation."""
        if self.global_step == 0:
            return self.config.trainer.validate_at_start
        done = self.run_log.has("validation", self.global_step) if self.context.is_main else None
        return self._validation_is_due() and not self.context.broadcast_object(done)

    def _validate(self) -> dict[str, float]:
        with self.engine.whole():
            metrics = validate(self.model, self.val_loaders, self.context, self.precision.autocast, self.stop)
        if metrics is None:
            self._end_by_signal()
        if self.context.is_main and metrics:
            for name in self.val_loaders:
                own = {k.removeprefix(f"{name}_"): v for k, v in metrics.items() if k.startswith(f"{name}_")}
                logger.info("validation, %s: %s", name, "  ".join(f"{k} {v:.2f}" for k, v in own.items()))
            if self.monitor is not None and self._checkpoint.exists():
                self.monitor.judge(metrics, self._checkpoint)
            self.run_log.write("validation", [{"step": self.global_step, "epoch": self.epoch, **metrics}])
        return metrics

    def _end_by_signal(self) -> NoReturn:
        cause = "since torchrun has ended" if self.stop.abandoned else "by a signal"
        raise Stopped(f"stopped {cause} at step {self.global_step}; go on with --resume auto")

    def _log(self, meter: StepMeter, bar: tqdm) -> None:
        rows, summary = meter.flush()
        if self.context.is_main and rows:
            self.run_log.write("step", [{"step": row["step"], "epoch": self.epoch, **row} for row in rows])
            bar.set_postfix_str(summary)
            left = timedelta(seconds=round(self._seconds_left()))
            logger.info("step %d/%d  %s  %s left", self.global_step, self.total_steps, summary, left)
        bad = [row for row in rows if not math.isfinite(row["loss"] + row["grad_norm"])]
        if bad and self.scaler.is_enabled() and self.scaler.get_scale() >= 1:
            return  # a loss scaler skips such steps, the first ones as a rule, and halves its scale
        if bad:
            raise FloatingPointError(
                f"loss {bad[0]['loss']}, gradient norm {bad[0]['grad_norm']} by step "
                f"{self.global_step}; the last checkpoint in {self.run_dir} is intact: lower the "
                "learning rate, clip gradients (optimizer.max_grad_norm) or use trainer.precision=fp32, and "
                "--resume auto"
            )

    def _seconds_left(self) -> float:
        """Time to the last step, at the rate since training began in this process, validations included."""
        begin, since = self.began
        done = self.global_step - begin
        return (time.monotonic() - since) / max(1, done) * (self.total_steps - self.global_step)

    # ------------------------------------------------------------------ checkpoints

    def resume(self, source: str) -> Path | None:
        """Go on from a checkpoint: a path, or "auto" for the newest whole one of this run (None if none)."""
        return resume(self, source)

    def _save(self) -> None:
        """Write a checkpoint: one file, by rank 0 for all, or a folder of all ranks' slices."""
        state = collect_state(self)
        if self.engine.sharded:
            save_sharded(state, self._checkpoint, self.context)
        elif self.context.is_main:
            save_atomically(state, self._checkpoint)
        if self.context.is_main:
            remove_old(self.run_dir, self.config.trainer.keep_last)
        self.context.barrier()

    @property
    def _checkpoint(self) -> Path:
        """The checkpoint of the place where the run is."""
        return checkpoint_path(self.run_dir, self.epoch, self.train_loader.step, self.engine.sharded)
