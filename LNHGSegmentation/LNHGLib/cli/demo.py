"""The command `lnhg demo`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.cli.console import Stop
from LNHGLib.cli.segment import add_model_options, require_writable, segment_and_write
from LNHGLib.measurement.score_scale import name_of

if TYPE_CHECKING:
    from LNHGLib.image.volume import Volume

FOLDER = Path("demo-output")
PICTURE = "preview.png"


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
    parser = commands.add_parser("demo", help="find the nodules of the embedded synthetic chest CT")
    parser.add_argument("out", metavar="OUT", type=Path, nargs="?", default=FOLDER, help="default: %(default)s")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, stop: Stop) -> None:
    """Run the command: print a row per finding, with the synthetic nodule whose center it holds.

    Args:
        options: Of the command line.
        stop: The wish of the user to stop.
    """
    from LNHGLib.phantom.chest import Phantom, make_phantom

    require_writable(options.out, True)
    made: list[Phantom] = []

    def read(_meanwhile: object) -> "Volume":
        made.append(make_phantom())
        return made[0].volume

    result = segment_and_write(options, stop, read, True)
    if options.json:
        return
    phantom = made[0]
    truth = {}
    for nodule in phantom.nodules:
        center = phantom.volume.grid.lps_to_index(nodule["center_lps_mm"]).round().astype(int)
        truth[int(result.labels[tuple(center)])] = f"{nodule['kind']}, {nodule['diameter_mm']:.0f} mm"
    truth.pop(0, None)
    print("Nodules of the embedded synthetic chest CT (drawn by this program, no patient):")
    score = name_of(result.report).lower()
    print(f"{'no':>2}  {score:>5}  {'long x short mm':>15}  {'found as':<24}  what it is")
    for nodule in result.nodules:
        size, kind = "-", nodule.provenance
        if measured := nodule.measurement:
            size = f"{measured.long_axis_mm:.1f} x {measured.short_axis_mm:.1f}"
            kind = f"{kind}, {measured.attenuation}"
        number = f"{nodule.score:.2f}".rjust(len(score))
        print(f"{nodule.number:>2}  {number}  {size:>15}  {kind:<24}  {truth.get(nodule.number, 'no nodule')}")
    print(f"{len(truth)} of {len(phantom.nodules)} synthetic nodules found.")
    print(options.out / PICTURE)
