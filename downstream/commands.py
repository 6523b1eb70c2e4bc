"""The evaluation commands: one data set, or all there are, from the command line to the tables."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from downstream.evaluation import Evaluator, Job, Protocol, UnreadableVideosError
from downstream.options import config_path, join_processes, read_config
from downstream.report import Evaluation, evaluation_table, paper_tables
from downstream.trained import load_trained
from utils.config import ConfigError
from utils.errors import one_line_interrupts, run_errors, user_errors
from utils.files import WriteError
from utils.processes import DistContext, leaving_group
from utils.schema import EvaluationConfig


@one_line_interrupts()
def run_command(args: Namespace, protocols: Iterable[Protocol]) -> int:
    """Evaluate the one data set that the options name; the exit status."""
    with user_errors():
        config = read_config(config_path(args.config, args.dataset, args.folder), args)
        protocol = protocol_for(config, protocols)
        context = join_processes(args.device)
    with leaving_group():
        with user_errors():
            evaluator = build_evaluator(args, context)
            root = Path(args.output).expanduser() if args.output else None
            folder = root or results_folder(None, protocol, config, args.arch)
            job = evaluator.open(protocol, config, folder, command(args, protocol))
            evaluator.check_folders(job.folder)
        try:
            with run_errors():
                evaluation = evaluator.evaluate(job)
                if evaluation is not None:
                    print(evaluation_table(evaluation, args.dsl))
                    evaluator.write(job, evaluation)
        except UnreadableVideosError as error:
            if context.is_main:
                print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


@one_line_interrupts()
def run_all(args: Namespace, names: Sequence[str], protocols: Sequence[Protocol]) -> int:
    """Evaluate every data set of `names` that is there, print the paper's tables; the exit status."""
    with user_errors():
        if args.config or args.dataset or args.folder:
            raise ConfigError("--all takes no --config, --dataset or --folder")
        configs = [read_config(config_path(None, name), args) for name in names]
        context = join_processes(args.device)
    jobs: list[Job] = []
    results: list[Evaluation] = []
    notes: list[str] = []
    status = 0
    root = Path(args.output).expanduser() if args.output else None
    with leaving_group(), run_errors():
        with user_errors():
            evaluator = build_evaluator(args, context)
        for config in configs:
            protocol = protocol_for(config, protocols)
            if not protocol.windows:
                config = replace(config, sliding_window_stride=-1)
            try:
                folder = results_folder(root, protocol, config, args.arch)
                jobs.append(evaluator.open(protocol, config, folder, command(args, protocol)))
            except FileNotFoundError as error:
                notes.append(f"{config.name}: left out, not all of it is there. {error}")
            except ValueError as error:
                notes.append(f"{config.name}: failed. {error}")
                status = 1
        if not jobs and not status:
            notes.append("none of the data sets is there: see the README's table for where they go")
        if jobs:
            with user_errors():
                evaluator.check_folders(root or Path("results"))
        for job in jobs:
            try:
                evaluation = evaluator.evaluate(job)
                if evaluation is not None:
                    results.append(evaluation)
                    evaluator.write(job, evaluation)
            except (UnreadableVideosError, WriteError) as error:
                notes.append(f"{job.config.name}: failed. {error}")
                status = 1
    if context.is_main:
        print("\n\n".join([*notes, *([paper_tables(results, args.arch)] if results else [])]))
        return status if results else 1
    return status


def protocol_for(config: EvaluationConfig, protocols: Iterable[Protocol]) -> Protocol:
    """The protocol of a config's task. Raises ConfigError if it is none of these."""
    of_task = {protocol.task: protocol for protocol in protocols}
    if config.task not in of_task:
        known = " or ".join(of_task)
        raise ConfigError(
            f"the task of {config.name} is {config.task}, this command's is {known}; test.py takes any"
        )
    return of_task[config.task]


def build_evaluator(args: Namespace, context: DistContext) -> Evaluator:
    report = Path(args.report).expanduser() if args.report else None
    trained = load_trained(args.arch, args.checkpoint, context)
    return Evaluator(trained, context, args.allow_missing, args.dsl, report)


def command(args: Namespace, protocol: Protocol) -> str:
    """What was called, as a line for a shell in the repository's folder."""
    script = "test.py" if hasattr(args, "all") else f"downstream/{protocol.name}.py"
    return shlex.join(["python", script, *args.given])


def results_folder(root: Path | None, protocol: Protocol, config: EvaluationConfig, arch: str) -> Path:
    """A folder for each protocol, data set and model, below `root` or else results/ in the current one."""
    return (root or Path("results")) / protocol.name / config.name / arch
