"""The page of an evaluation: what was found for each query, or which class was taken for which."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from data_loader.dataset import VideoDataset
from data_loader.labels import LabelRecords, MultiLabelRecords
from data_loader.multiple_choice import QuestionRecords
from downstream.report import TITLES, Evaluation, format_interval, format_value, per_class
from downstream.report.pages import write_page
from downstream.report.pictures import Picture, Thumbnails, thumbnails
from downstream.report.runs import differences
from utils.schema import EvaluationConfig
from utils.text import counted

MOST_QUERIES = 1000  # on a page; more would be slow to open, and nobody reads that far
MOST_CLASSES = 40  # in a matrix that can be read
MOST_CONFUSIONS = 50  # whose videos are shown
MOST_VIDEOS = 6  # of each


def write_report(
    folder: Path,
    evaluation: Evaluation,
    dataset: VideoDataset,
    weights: str,
    table: str,
    command: str,
    index: Path | None = None,
) -> Path:
    """Write the page of an evaluation, `folder`/<task>_<data set>.html. Returns its path.

    weights: of the model, and command: what was called, for the page's foot. table: the metrics, as the
    terminal shows them. index: the folder whose index lists the page, if it is not this one.
    Retrieval and multiple choice: the queries with what was ranked first, the true one marked, worst cases
    first. Recognition and probes: confusion matrix, videos that were taken for another class, accuracy of
    each class; with several labels a video, each class's average precision.
    """
    name, protocol, queries = evaluation.config.name, evaluation.protocol, evaluation.measured.queries
    path = folder / f"{protocol}_{name}.html"
    values: dict[str, Any]
    if protocol in ("retrieval", "multiple_choice"):
        template = "ranking"
        worst = sorted(queries, key=lambda query: -query["rank"])[:MOST_QUERIES]
        heading = f"The {len(worst)} queries with the worst ranks, of {len(queries)}"
        if len(worst) == len(queries):
            heading = "Every query, worst ranks first"
        captions = {query["video"]: query["caption"] for query in reversed(queries) if "caption" in query}
        items = [ranking_item(query, captions) for query in worst]
        if protocol == "multiple_choice":
            tell_options(items, dataset)
        values = {"heading": heading, "items": items}
        names = pictures_of(items)
    elif isinstance(dataset.records, MultiLabelRecords):
        template, names = "average_precision", []
        of_classes = evaluation.measured.details["per_class"]
        values = {"rows": sorted(of_classes, key=lambda row: (row["AP"], row["name"]))}
    else:
        template = "confusion"
        values = confusion(queries, dataset.records_as(LabelRecords).class_names)
        names = [video["video"] for pair in values["confusions"] for video in pair["shown"]]
    write_page(
        path,
        template,
        f"{name}: {protocol.replace('_', ' ')}",
        evaluation_facts(evaluation),
        shown=video_pictures(list(dict.fromkeys(names)), dataset, evaluation.config),
        index=index or folder,
        table=table,
        footer=[weights, command],
        **values,
    )
    return path


def evaluation_facts(evaluation: Evaluation) -> dict[str, str]:
    """What was evaluated, and the first figure of it."""
    metrics = evaluation.main_metrics["plain"]
    first = next(metric for metric in TITLES if metric in metrics)
    interval = evaluation.main_intervals.get("plain", {}).get(first)
    between = f" ({format_interval(interval)})" if interval else ""
    data = [counted(n, what) for what, n in evaluation.measured.counts.items()]
    if evaluation.missing:
        data.append(f"without {counted(len(evaluation.missing), 'unreadable videos')}")
    prompts = evaluation.measured.details.get("prompts", [])
    words = ", ".join(f"“{prompt}”" for prompt in prompts[:3])
    if len(prompts) > 3:
        words += f" and {len(prompts) - 3} more"
    config = asdict(evaluation.config)
    if prompts:  # said in full, so the settings need not name them
        given = config.pop("prompts")
        words = f"{given}: {words}" if isinstance(given, str) else words
    facts = {
        "result": f"{TITLES[first]} {format_value(metrics[first])}{between}",
        "model": evaluation.arch,
        "data": ", ".join(data),
        "prompts": words,
        "settings": ", ".join(filter(None, differences(evaluation.config.name, config))),
    }
    return {name: fact for name, fact in facts.items() if fact}


def ranking_item(query: dict[str, Any], captions: dict[str, str]) -> dict[str, Any]:
    """A query of an Evaluation as the page shows it: the first candidates, and the true one wherever it came.

    In retrieval the candidates are videos, each with a caption of its own of `captions`; in multiple choice
    the texts that one video chooses among. Two such texts may be equal, so the true one is known by its rank;
    a video is known by its name.
    """
    retrieval = "caption" in query
    truth = query["video"] if retrieval else query["answer"]
    cards = [
        {
            "rank": rank,
            "label": label,
            "similarity": similarity,
            "true": label == truth and (retrieval or rank == query["rank"]),
            "picture": label if retrieval else None,
        }
        for rank, (label, similarity) in enumerate(query["top"], 1)
    ]
    if not any(card["true"] for card in cards):
        late = {"rank": query["rank"], "label": truth, "similarity": query["similarity"]}
        cards.append(late | {"true": True, "picture": truth if retrieval else None})
    for card in cards:
        card["caption"] = "" if card["true"] else captions.get(card["label"], "")
    return {
        "query": f"“{query['caption']}”" if retrieval else query["video"],
        "picture": None if retrieval else query["video"],
        "rank": query["rank"],
        "cards": cards,
        "note": "",
    }


def tell_options(items: Iterable[dict[str, Any]], dataset: VideoDataset) -> None:
    """Note of each question how many options there were and which are shown."""
    records = dataset.records_as(QuestionRecords)
    options = {records.id(i): len(records.options(i)) for i in range(len(records))}
    for item in items:
        number, shown = options[item["picture"]], len(item["cards"])
        nearest = sum(card["rank"] == place for place, card in enumerate(item["cards"], 1))
        which = "all are shown" if shown == number else f"the {nearest} nearest are shown"
        if nearest < shown < number:
            which += " and the true one"
        item["note"] = f"{number} options: {which}"


def pictures_of(items: Iterable[dict[str, Any]]) -> list[str]:
    """The videos that ranking items show."""
    shown = [part["picture"] for item in items for part in (item, *item["cards"])]
    return [name for name in shown if name is not None]


def video_pictures(names: Sequence[str], dataset: VideoDataset, config: EvaluationConfig) -> Thumbnails:
    """Three frames of each of these videos of a data set, in their order."""
    records = dataset.records
    index = {records.id(i): i for i in range(len(records))} if names else {}
    pictures = {
        name: Picture(str(records.path(i)), span=records.span(i), open=partial(records.video_file, i))
        for name, i in ((name, index[name]) for name in names)
    }
    return thumbnails(pictures, config.reader, config.read_timeout)


def confusion(queries: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Which class was taken for which: the matrix of the classes that were confused most, its cells that are
    not empty, a last column for all others; videos that were taken for another class, most frequent cases
    first; each class's accuracy."""
    number = {name: i for i, name in enumerate(classes)}
    totals = Counter(query["class"] for query in queries)
    counts = Counter((query["class"], query["predicted"]) for query in queries)
    wrong = sorted(
        (pair for pair in counts if pair[0] != pair[1]),
        key=lambda pair: (-counts[pair], number[pair[0]], number[pair[1]]),
    )
    by_confusion = dict.fromkeys([*(name for pair in wrong for name in pair), *classes])
    shown = sorted([*by_confusion][:MOST_CLASSES], key=number.__getitem__)
    place = {name: i for i, name in enumerate(shown)}
    columns = shown if len(shown) == len(classes) else [*shown, "any other"]
    listed = {pair: i for i, pair in enumerate(wrong[:MOST_CONFUSIONS])}
    cells = []
    for true in shown:
        row = Counter[int]()
        for guess in classes:
            row[place.get(guess, len(shown))] += counts[true, guess]
        cells += [
            {
                "row": place[true],
                "column": column,
                "count": count,
                "total": totals[true],
                "share": count / totals[true],
                "case": listed.get((true, columns[column])),
            }
            for column, count in sorted(row.items())
            if count
        ]
    videos: dict[tuple[str, str], list[dict[str, Any]]] = {pair: [] for pair in listed}
    for query in queries:
        if (query["class"], query["predicted"]) in videos:
            videos[query["class"], query["predicted"]].append(query)
    cell = max(20, min(56, 640 // len(shown)))
    longest = min(24, max(map(len, columns)))
    return {
        "rows": shown,
        "columns": columns,
        "number": len(classes),
        "cells": cells,
        "wrong": sum(counts[pair] for pair in wrong),
        "cases": len(wrong),
        "confusions": [
            {
                "true": pair[0],
                "guess": pair[1],
                "count": counts[pair],
                "total": totals[pair[0]],
                "shown": sorted(found, key=lambda query: -query["rank"])[:MOST_VIDEOS],
            }
            for pair, found in videos.items()
        ],
        "per_class": per_class(queries),
        "cell": cell,
        "longest": longest,
        "margin": 10 + round(min(cell * 0.7, 13) * 0.62 * longest),
    }
