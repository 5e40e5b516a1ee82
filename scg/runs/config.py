"""Configuration: settings of a TOML file, of which every key and type is known, or named with the nearest."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from scg.errors import RunError
from scg.nearest import named_nearest

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a table",
}


def load(path: str | Path) -> dict[str, Any]:
    """Return what a TOML file at ``path`` says, or an error that names the file."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is no TOML: {error}") from error


def checked(
    path: str | Path, found: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Any]:
    """Read every value, and report all keys and values that do not fit together."""
    faults, values = [], {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in readers:
            shown = [own.replace("_", "-") for own in readers]
            faults.append(named_nearest("key", key.replace("_", "-"), shown))
            continue
        try:
            values[name] = readers[name](value)
        except (TypeError, ValueError) as error:
            faults.append(f"'{key}' is {value!r}, {error}")
    if faults:
        raise RunError(f"{path}: {'; '.join(faults)}")
    return values


def as_kind(kind: type, value: Any) -> Any:
    """Return a value of TOML as one of a kind; whole numbers are numbers, and true is none.

    >>> as_kind(float, 1)
    1.0
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"and has to be {KINDS[kind]}")
    return value


def read_config(path: str | Path, defaults: object) -> dict[str, Any]:
    """Return ``defaults``, a mapping or a dataclass, with what a TOML file at ``path`` says instead.

    A value has to be of the type of its default; where that is None, it may be anything.
    """
    known = asdict(defaults) if is_dataclass(defaults) and not isinstance(defaults, type) else defaults
    if not isinstance(known, Mapping):
        raise RunError(f"defaults are a mapping or a dataclass, not a {type(known).__name__}")
    readers = {name: _reader(default) for name, default in known.items()}
    return {**known, **checked(path, load(path), readers)}


def _reader(default: Any) -> Callable[[Any], Any]:
    if isinstance(default, (list, tuple)):
        each = _reader(default[0]) if default else _anything
        return lambda value: type(default)(each(one) for one in as_kind(list, value))
    for kind in KINDS:
        if isinstance(default, kind):
            return lambda value: as_kind(kind, value)
    return _anything


def _anything(value: Any) -> Any:
    return value
