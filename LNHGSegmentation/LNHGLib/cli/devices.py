"""The command `lnhg devices`."""

import argparse
import json
from dataclasses import asdict

from LNHGLib.cli.console import Stop
from LNHGLib.models import compile_cache
from LNHGLib.segmentation import devices


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
    found = devices.find()
    if options.json:
        print(json.dumps({"devices": [asdict(device) for device in found]}))
    else:
        print("\n".join(map(devices.describe, found)))
