"""Whether the packages that the core needs really load: `python -m LNHGLib.packages`, in a process of its own.

Needs nothing beyond Python itself. Each line says how far it came, so that the last one tells the culprit even where
loading a broken package ends the process.
"""

import importlib
import json
import sys
from collections.abc import Sequence

NAMES = ("torch", "torchvision", "matplotlib", "safetensors", "skimage")
"""Import names of what Slicer does not bring, in the order of loading: torchvision fails where torch does not fit."""


def load(names: Sequence[str] = NAMES) -> bool:
    """Load the packages one after the other and print lines of JSON; returns whether all of them work.

    A line has `trying` (the name that is being loaded, None at the end), `versions` and `faults`, by name.
    """
    versions: dict[str, str] = {}
    faults: dict[str, str] = {}
    for name in names:
        _tell(name, versions, faults)
        try:
            versions[name] = str(getattr(importlib.import_module(name), "__version__", "?"))
        except Exception as error:
            faults[name] = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"
    _tell(None, versions, faults)
    return not faults


def _tell(trying: str | None, versions: dict[str, str], faults: dict[str, str]) -> None:
    print(json.dumps({"trying": trying, "versions": versions, "faults": faults}), flush=True)


if __name__ == "__main__":
    sys.exit(0 if load(sys.argv[1:] or NAMES) else 1)
