"""Changes of a configuration on the command line: `--set loss.mse=0`, so that an ablation needs no file of its own."""

import tomllib

from LNHGLib.errors import InputError


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
