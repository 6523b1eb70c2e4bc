"""Configs: defaults, then a JSON file, then the command line. Unknown keys are errors.

A typed config is a dataclass that says every key once, by `key`: its type, its default and what it means.
"""

import dataclasses
import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

REPOSITORY = Path(__file__).resolve().parent.parent
PRETRAINING_DEFAULTS = REPOSITORY / "configs" / "base.json"

Config = dict[str, Any]


class ConfigError(ValueError):
    """A config file or an override that cannot be used; the message names the key and what to do."""


class CommandLineText(str):
    """A value from the command line, to be understood once its key's type is known."""


T = TypeVar("T")
REQUIRED = ...  # stands for the value of a key that has no default


def key(meaning: str, default: Any = dataclasses.MISSING) -> Any:
    """A key of a typed config; without a default it has to be given."""
    metadata = {"meaning": meaning}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load_typed(schema: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Read a typed config: the defaults of `schema`, the values of `path` over them, then each override.

    Args:
        path, overrides: as for load_config; on the command line Python's True, False and None are understood,
            too, and whatever is written for a text is that text.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: not valid JSON, an unknown key (the nearest is named), one that is missing, or a value of
            another type; and whatever __post_init__ of a schema finds wrong.
    """
    known = _defaults(schema)
    config = deepcopy(known)
    _merge(config, read_json(resolve_path(path)), known, where=str(path))
    for override in overrides:
        _override(config, override, known, scalar=CommandLineText)
    try:
        return fill(schema, config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def fill(kind: Any, value: Any, name: str = "") -> Any:
    """`value`, of JSON or the command line, as `kind`: a dataclass, a type, or a union of such.

    Raises:
        ConfigError: it is of another type; the message names the key `name` and the type.
    """
    if value is REQUIRED:
        raise ConfigError(f"{name!r} is missing")
    if isinstance(value, CommandLineText):
        value = _understand(value, kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        prefix, types = f"{name}." if name else "", get_type_hints(kind)
        return kind(**{each: fill(types[each], value[each], prefix + each) for each in types})
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or (kind is NoneType and value is None) or (origin is Literal and value in inner):
        return value
    if origin in (Union, UnionType):
        for option in inner:
            try:
                return fill(option, value, name)
            except ConfigError:
                continue
    elif origin is list and isinstance(value, list):
        return [fill(inner[0], item, f"{name}.{i}") for i, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        return {each: fill(inner[1], item, f"{name}.{each}") for each, item in value.items()}
    elif isinstance(value, bool) or origin is not None or not isinstance(kind, type):
        if kind is bool:
            return value
    elif isinstance(value, kind):
        return value
    elif kind is float and isinstance(value, int):
        return float(value)
    raise ConfigError(f"{name} is {value!r}; it must be {_describe(kind)}")


def _describe(kind: Any) -> str:
    """A type in words for a person."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(map(_describe, inner))
    if origin is list:
        return f"a list, each item {_describe(inner[0])}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
    return words.get(kind, "an object of keys and values")


def _understand(text: str, kind: Any) -> Any:
    """What someone who writes `text` for a value of type `kind` means; the text itself if in doubt."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if NoneType in kinds and text in ("None", "null"):
        return None
    if str in kinds:
        return str(text)
    if bool in kinds and text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        with suppress(ValueError):
            return float(text)  # ".0001", which is no JSON
        return str(text)


def _defaults(schema: Any) -> Config:
    """The keys of a dataclass with their defaults, as nested dicts; REQUIRED for those without one."""
    known: Config = {}
    types = get_type_hints(schema)
    for each in dataclasses.fields(schema):
        if dataclasses.is_dataclass(types[each.name]):
            known[each.name] = _defaults(types[each.name])
        elif each.default is not dataclasses.MISSING:
            known[each.name] = each.default
        elif each.default_factory is not dataclasses.MISSING:
            known[each.name] = each.default_factory()
        else:
            known[each.name] = REQUIRED
    return known


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


def _override(
    config: Config, override: str, known: Mapping[str, Any], scalar: Callable[[str], Any] | None = None
) -> None:
    """Set one key. A plain value is what JSON makes of its text or, with `scalar`, that of the text."""
    name, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override!r} has no '='; write --set key.path=value")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if scalar is not None and not isinstance(value, dict | list):
        value = scalar(text)
    *parents, last = name.split(".")
    node: Any = config
    for depth, key in enumerate(parents):
        node = _step_into(node, key, ".".join(parents[:depth]))
    if isinstance(node, list):
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
