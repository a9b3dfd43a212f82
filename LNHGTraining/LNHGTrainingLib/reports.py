"""The commands of `lnhg-train` that read what others wrote: `compare` and `paper`."""

import argparse
from pathlib import Path

from LNHGLib.errors import InputError

MARGIN = 0.02
"""Dice that two methods may differ by and still be called equivalent, where nothing else is asked for."""


def add_commands(commands: "argparse._SubParsersAction") -> None:
    """Add the commands to the parser of `lnhg-train`."""
    _add_compare(commands.add_parser("compare", help="set evaluations of the same nodules side by side, with tests"))
    _add_paper(commands.add_parser("paper", help="print the paper's Tables I, II and S1 beside ours (Markdown)"))


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("evaluations", type=Path, nargs="+", metavar="EVALUATION", help="folder of an evaluation")
    parser.add_argument("--margin", type=float, default=MARGIN, help=f"of equivalence, Dice (default {MARGIN:g})")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables and tests")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    from LNHGTrainingLib import compare, compare_tables, outputs

    if not 0 < options.margin < 1:
        raise InputError(f"--margin is {options.margin:g}, expected a Dice between 0 and 1.")
    outputs.check_free(options.out, options.overwrite, outputs.COMPARISON)
    report = compare.compare(compare.read_evaluations(options.evaluations), options.margin, options.seed)
    compare.write(report, options.out, options.overwrite)
    print(compare_tables.render(report))
    print(options.out)


def _add_paper(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("evaluations", type=Path, nargs="*", metavar="EVALUATION", help="folder of an evaluation")
    parser.set_defaults(run=_paper)


def _paper(options: argparse.Namespace) -> None:
    from LNHGTrainingLib import compare, paper

    print(paper.render([compare.read_evaluation(folder) for folder in options.evaluations]), end="")
