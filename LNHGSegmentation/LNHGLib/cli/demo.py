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
    """Run the command: print a row per finding, with the synthetic nodule that its centroid lies in.

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
    truth = {nodule["label"]: f"{nodule['kind']}, {nodule['diameter_mm']:.0f} mm" for nodule in phantom.nodules}
    print("Nodules of the embedded synthetic chest CT (drawn by this program, no patient):")
    score = name_of(result.report).lower()
    print(f"{'no':>2}  {score:>5}  {'long x short mm':>15}  {'found as':<24}  what it is")
    found = set()
    for nodule in result.nodules:
        size, kind, label = "-", nodule.provenance, 0
        if measured := nodule.measurement:
            size = f"{measured.long_axis_mm:.1f} x {measured.short_axis_mm:.1f}"
            kind = f"{kind}, {measured.attenuation}"
            index = phantom.volume.grid.lps_to_index(measured.centroid_lps_mm).round().astype(int)
            label = int(phantom.labels[tuple(index)])
        found |= {label} - {0}
        number = f"{nodule.score:.2f}".rjust(len(score))
        print(f"{nodule.number:>2}  {number}  {size:>15}  {kind:<24}  {truth.get(label, 'no nodule')}")
    print(f"{len(found)} of {len(truth)} synthetic nodules found.")
    print(options.out / PICTURE)
