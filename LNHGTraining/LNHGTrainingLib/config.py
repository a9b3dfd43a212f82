"""Configurations: TOML files that may build on another, and changes on the command line such as `--set loss.mse=0`."""

import tomllib
from functools import reduce
from pathlib import Path

from LNHGLib.errors import InputError


def read(path: Path) -> dict:
    """Read a TOML configuration; its `base` names files beside it, whose values hold where no later one has its own.

    Raises:
        InputError: a file is missing or is no TOML.
    """
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}), expected a TOML configuration; check --config."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no valid TOML ({error}); mend it.") from error
    bases = config.pop("base", [])
    names = [bases] if isinstance(bases, str) else bases
    return reduce(_merged, [*(read(path.parent / name) for name in names), config])


def _merged(base: dict, own: dict) -> dict:
    both = {key: _merged(base[key], own[key]) for key in base.keys() & own.keys() if isinstance(base[key], dict)}
    return base | own | both


def hold_out(config: dict, fold: int) -> dict:
    """The configuration that validates on one fold and trains on the others.

    Raises:
        InputError: the configuration has no such fold.
    """
    folds = {*config["data"]["train_folds"], *config["data"]["validation_folds"]}
    if fold not in folds:
        raise InputError(f"--fold is {fold}, expected one of {', '.join(map(str, sorted(folds)))}.")
    split = {"train_folds": sorted(folds - {fold}), "validation_folds": [fold]}
    return config | {"data": config["data"] | split}


def override(config: dict, settings: list[str]) -> dict:
    """The configuration with `settings` in place of what it held.

    Args:
        config: nested tables.
        settings: each "key=value"; dots in the key lead into tables, the value is TOML or else a bare word.

    Raises:
        InputError: a setting is no such text, its key is not in the configuration, or its value is of another kind.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting!r} has no value, expected key=value, as in loss.mse=0.")
        config = _replaced(config, key.strip().split("."), _value(text.strip()), key.strip())
    return config


def _replaced(table: dict, path: list[str], value: object, key: str) -> dict:
    name, *rest = path
    if name not in table or (rest and not isinstance(table[name], dict)):
        raise InputError(f"--set {key}: no {name!r} here, expected one of {', '.join(table)}; the file names all keys.")
    old = table[name]
    if rest:
        return table | {name: _replaced(old, rest, value, key)}
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(old):
        raise InputError(f"--set {key} is {value!r}, expected a value like {old!r}.")
    return table | {name: value}


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
