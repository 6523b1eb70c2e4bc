"""The evaluation commands: one data set, or all there are, from the command line to the tables."""

import shlex
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from downstream.embedding.encoder import folder_name, load_encoder
from downstream.evaluation import Evaluator, UnreadableVideosError
from downstream.options import chosen_models, config_path, join_processes, read_config
from downstream.protocol import Job, Protocol
from downstream.report import Evaluation, comparison_table, evaluation_table, paper_tables
from utils.config import ConfigError
from utils.errors import one_line_interrupts, run_errors, user_errors
from utils.files import WriteError
from utils.processes import DistContext, leaving_group
from utils.schema import EvaluationConfig


@one_line_interrupts()
def run_command(args: Namespace, protocols: Iterable[Protocol]) -> int:
    """Evaluate the one data set that the options name with each model; the exit status."""
    with user_errors():
        config = read_config(config_path(args.config, args.dataset, args.folder), args)
        protocol = protocol_for(config, protocols)
        context = join_processes(args.device)
    with leaving_group():
        with user_errors():
            evaluators = build_evaluators(args, context)
            jobs = {}
            for name, evaluator in evaluators.items():
                folder = results_folder(None, protocol, config, name)
                if args.output:
                    root = Path(args.output).expanduser()
                    folder = root / folder_name(name) if len(evaluators) > 1 else root
                jobs[name] = evaluator.open(protocol, config, folder, command(args, protocol))
                evaluator.check_folders(folder)
        measured: dict[str, Evaluation] = {}
        try:
            with run_errors():
                for name, evaluator in evaluators.items():
                    evaluation = evaluator.evaluate(jobs[name])
                    if evaluation is not None:
                        measured[name] = evaluation
                        print(evaluation_table(evaluation, args.dsl))
                        evaluator.write(jobs[name], evaluation)
        except UnreadableVideosError as error:
            if context.is_main:
                print(f"error: {error}", file=sys.stderr)
            return 1
    if len(measured) > 1:
        print(f"\n{comparison_table(measured, args.dsl)}")
    return 0


@one_line_interrupts()
def run_all(args: Namespace, names: Sequence[str], protocols: Sequence[Protocol]) -> int:
    """Evaluate every data set of `names` that is there, print the paper's tables; the exit status."""
    with user_errors():
        if args.config or args.dataset or args.folder:
            raise ConfigError("--all takes no --config, --dataset or --folder")
        configs = [read_config(config_path(None, name), args) for name in names]
        context = join_processes(args.device)
    jobs: list[tuple[str, Job]] = []
    notes: dict[str, None] = {}  # in order, what all models have in common once
    status = 0
    root = Path(args.output).expanduser() if args.output else None
    with leaving_group(), run_errors():
        with user_errors():
            evaluators = build_evaluators(args, context)
        results: dict[str, list[Evaluation]] = {model: [] for model in evaluators}
        for config in configs:
            protocol = protocol_for(config, protocols)
            if not protocol.windows:
                config = replace(config, sliding_window_stride=-1)
            for model, evaluator in evaluators.items():
                folder = results_folder(root, protocol, config, model)
                try:
                    jobs.append((model, evaluator.open(protocol, config, folder, command(args, protocol))))
                except FileNotFoundError as error:
                    notes[f"{config.name}: left out, not all of it is there. {error}"] = None
                except ValueError as error:
                    notes[f"{config.name}: failed. {error}"] = None
                    status = 1
        if not jobs and not status:
            notes["none of the data sets is there: docs/data-sets.md says where they go"] = None
        if jobs:
            with user_errors():
                for evaluator in evaluators.values():
                    evaluator.check_folders(root or Path("results"))
        for model, job in jobs:
            try:
                evaluation = evaluators[model].evaluate(job)
                if evaluation is not None:
                    results[model].append(evaluation)
                    evaluators[model].write(job, evaluation)
            except (UnreadableVideosError, WriteError) as error:
                notes[f"{job.config.name}: failed. {error}"] = None
                status = 1
    if context.is_main:
        done = any(results.values())
        print("\n\n".join([*notes, *([paper_tables(results)] if done else [])]))
        return status if done else 1
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


def build_evaluators(args: Namespace, context: DistContext) -> dict[str, Evaluator]:
    """One for each model, by names that differ: a model, and where it comes with several weights their hash.

    All are loaded before the work, so that mistakes are found then.
    """
    encoders = [load_encoder(*model, context) for model in chosen_models(args)]
    times = Counter(encoder.arch for encoder in encoders)
    report = Path(args.report).expanduser() if args.report else None
    evaluators: dict[str, Evaluator] = {}
    for encoder in encoders:
        name = encoder.arch if times[encoder.arch] == 1 else f"{encoder.arch}-{encoder.sha256[:8]}"
        page = report / folder_name(name) if report and len(encoders) > 1 else report
        if name in evaluators:
            raise ConfigError(f"{encoder.path} holds the same weights as {evaluators[name].encoder.path}")
        evaluators[name] = Evaluator(encoder, context, args.allow_missing, args.dsl, page, report)
    if context.is_main and len(encoders) > 1:
        print("\n".join(f"{name}: {each.encoder.path}" for name, each in evaluators.items()))
    return evaluators


def command(args: Namespace, protocol: Protocol) -> str:
    """What was called, as a line for a shell in the repository's folder."""
    name = "probe" if hasattr(args, "probe") else protocol.name
    script = "test.py" if hasattr(args, "all") else f"downstream/{name}.py"
    return shlex.join(["python", script, *args.given])


def results_folder(root: Path | None, protocol: Protocol, config: EvaluationConfig, model: str) -> Path:
    """A folder for each protocol, data set and model, below `root` or else results/ in the current one;
    protocols that measure the same embeddings share it."""
    return (root or Path("results")) / (protocol.shares or protocol.name) / config.name / folder_name(model)
