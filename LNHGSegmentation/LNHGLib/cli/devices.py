"""The command `lnhg devices`."""

import argparse
import json
from dataclasses import asdict
from importlib.metadata import version

from LNHGLib.cli.console import Stop
from LNHGLib.models import compile_cache, folder
from LNHGLib.segmentation import devices, runtime


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
    parser = commands.add_parser("devices", help="list what the networks can run on; auto takes the first")
    parser.add_argument("--json", action="store_true", help="as one line of JSON")
    parser.add_argument(
        "--clear-cache", action="store_true", help="remove the networks that were compiled for this processor"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, _stop: Stop) -> None:
    """Run the command.

    Args:
        options: Of the command line.
        _stop: Not needed.
    """
    if options.clear_cache:
        removed = compile_cache.clear()
        print(f"{removed / 2**20:.0f} MB of compiled networks removed from {compile_cache.cache_folder()}")
        return
    found, installed = devices.find(), runtime.installed()
    if options.json:
        models = {model.name: runtime.runtimes_of(model) for model in folder.available()}
        print(json.dumps({"devices": [asdict(device) for device in found], "runtimes": installed, "models": models}))
        return
    print("\n".join(map(devices.describe, found)))
    names = " or ".join(f"{name} {version(name)}" for name in installed)
    print(f"networks run by {names or 'nothing yet: install OpenVINO with python -m LNHGLib.packages install cpu'}")
