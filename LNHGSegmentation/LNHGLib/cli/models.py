"""The command `lnhg models`."""

import argparse
import json

from LNHGLib.cli.console import Stop, count
from LNHGLib.models import folder


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
    parser = commands.add_parser("models", help="list, show, check or add models")
    parser.set_defaults(run=run, action="list")
    actions = parser.add_subparsers(metavar="ACTION")
    actions.add_parser("list", help="a model a line, the default first").set_defaults(action="list")
    for name, text in (
        ("show", "print a model's card"),
        ("verify", "check every file of a model"),
        ("add", "copy a model, a folder or a zip of one, to the user's models"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("model", metavar="FOLDER|ZIP" if name == "add" else "NAME|FOLDER")
        action.set_defaults(action=name)


def run(options: argparse.Namespace, _stop: Stop) -> None:
    """Run the command.

    Args:
        options: Of the command line.
        _stop: Not needed.
    """
    if options.action == "list":
        for model in folder.available():
            print(f"{model.name}  {model.card['description']}  ({model.folder})")
    elif options.action == "add":
        model = folder.add(options.model)
        print(f"{model.name} added to {model.folder}")
    else:
        model = folder.load(options.model)
        if options.action == "show":
            print(json.dumps(model.card, indent=2, ensure_ascii=False))
        else:
            listed = count(len(model.card["files"]), "file")
            print(f"{model.name}: {listed} as listed, nothing changed ({model.folder})")
