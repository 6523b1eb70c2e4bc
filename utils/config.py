"""Configs: defaults, then a JSON file, then the command line. Unknown keys are errors."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PRETRAINING_DEFAULTS = REPOSITORY / "configs" / "base.json"

Config = dict[str, Any]


class ConfigError(ValueError):
    """A config file or an override that cannot be used; the message names the key and what to do."""


def load_config(
    path: str | Path, overrides: Iterable[str] = (), defaults: str | Path = PRETRAINING_DEFAULTS
) -> Config:
    """Read a config: `defaults`, with the values of `path` put over them, then each "key.path=value".

    Args:
        path: a JSON file. Objects merge key by key with the defaults; lists and plain values replace theirs.
        overrides: "trainer.epochs=3", "data.train.0.root=/disk/yt"; the value is JSON, or else a string.
        defaults: the JSON file that holds every known key.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: not valid JSON, or an unknown key (the nearest known one is named).
    """
    known = read_json(defaults)
    config = deepcopy(known)
    _merge(config, read_json(resolve_path(path)), known, where=str(path))
    for override in overrides:
        _override(config, override, known)
    return config


def resolve_path(path: str | Path) -> Path:
    """A path as given when it exists from the current directory, else relative to the repository's root.

    So every command works from any directory, with the same config.
    """
    path = Path(path).expanduser()
    if path.is_absolute() or path.exists():
        return path
    return REPOSITORY / path


def read_json(path: str | Path) -> Any:
    """Read a JSON file, with errors that name it and the line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no config file {path}; those of the repository are in {REPOSITORY / 'configs'}"
        )
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not valid JSON: line {error.lineno}: {error.msg}") from error


def check_counts(
    section: Mapping[str, Any], name: str, keys: Iterable[str], or_null: Iterable[str] = ()
) -> None:
    """ConfigError unless these keys of a section hold whole numbers from 1 on; `or_null` may be null."""
    for key in (*keys, *or_null):
        value = section[key]
        if value is None and key in or_null:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            null = " or null" if key in or_null else ""
            raise ConfigError(f"{name}.{key} is {value!r}; it must be a whole number from 1 on{null}")


def nearest_key(key: str, known: Iterable[str]) -> str:
    """Words for an error message: the known key most like `key`, or all of them when none is alike."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def _merge(config: Config, values: Any, known: Mapping[str, Any], where: str, prefix: str = "") -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where}: {prefix.rstrip('.') or 'the whole file'} must be an object of keys and values"
        )
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {prefix + key!r}; {nearest_key(key, known)}")
        if isinstance(known[key], Mapping) and known[key]:
            _merge(config[key], value, known[key], where, f"{prefix}{key}.")
        else:
            config[key] = value


def _override(config: Config, override: str, known: Mapping[str, Any]) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override!r} has no '='; write --set key.path=value")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    *parents, last = name.split(".")
    node: Any = config
    for depth, key in enumerate(parents):
        node = _step_into(node, key, ".".join(parents[:depth]))
    if isinstance(node, Sequence) and not isinstance(node, str):
        node[_list_index(node, last, name)] = value
    elif isinstance(node, dict):
        _merge_one(node, last, value, known, parents, name)
    else:
        raise ConfigError(f"--set {name}: {'.'.join(parents)} is a plain value and has no keys")


def _merge_one(
    node: Config, last: str, value: Any, known: Mapping[str, Any], parents: list[str], name: str
) -> None:
    """Set one key of `node`. Keys inside lists (the data sets) are checked by whoever reads them."""
    schema: Any = known
    for key in parents:
        schema = schema.get(key) if isinstance(schema, Mapping) else None
    if isinstance(schema, Mapping) and schema:
        prefix = "".join(f"{key}." for key in parents)
        _merge(node, {last: value}, schema, f"--set {name}", prefix)
    else:
        node[last] = value


def _step_into(node: Any, key: str, where: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, key, where)]
    if not isinstance(node, Mapping):
        raise ConfigError(f"--set: {where} is a plain value and has no key {key!r}")
    if key not in node:
        prefix = f"{where}." if where else ""
        raise ConfigError(f"--set: unknown key {prefix + key!r}; {nearest_key(key, node)}")
    return node[key]


def _list_index(items: Sequence[Any], key: str, where: str) -> int:
    if not key.isdigit() or int(key) >= len(items):
        raise ConfigError(f"--set: {where} is a list of {len(items)}; write a number below that, not {key!r}")
    return int(key)
