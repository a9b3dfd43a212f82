"""The Python packages that LNHG needs: whether they load, and their installation. Needs nothing beyond Python itself.

    PythonSlicer -m LNHGLib.packages [check] [GROUP ...]
    PythonSlicer -m LNHGLib.packages install [GROUP ...] [--yes] [--torch BUILD]

`check` (the default) loads the packages in this process of its own and prints lines of JSON; each says how far it came,
so that the last one tells the culprit even where loading a broken package ends the process. `install` brings what is
missing, and anew what does not load. GROUP is cpu, which runs the networks on a CPU by OpenVINO without PyTorch,
segmentation, which runs them by PyTorch, training, which has all of segmentation, or tensorboard: training draws its
curves with it where it is there. Without a GROUP, `check` takes cpu, segmentation or both, whichever is there, and
`install` takes segmentation.

PyTorch is installed where it is missing: by default the build that fits this computer's driver, chosen by
light-the-torch as the PyTorch extension of 3D Slicer does; what the extension has installed stays.
"""

import argparse
import sys
from collections.abc import Sequence

from LNHGLib.cli.console import Stop, progress_printer
from LNHGLib.errors import Cancelled, InputError, WorkError
from LNHGLib.setup import install, package_list


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> None:
        raise InputError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments.

    Raises:
        InputError: They are wrong.
    """
    about, _, explained = __doc__.partition("\n\n")
    parser = _Parser(
        prog="python -m LNHGLib.packages",
        description=about,
        epilog=explained,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=("check", "install"), default="check", help="what to do")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(package_list.GROUPS)}")
    parser.add_argument("--yes", action="store_true", help="install without asking")
    parser.add_argument(
        "--torch",
        metavar="BUILD",
        help="another build of PyTorch: cpu, cu128 and so on (a cluster's login node often has no driver), or pypi for "
        "that of the package index (where no other site can be reached)",
    )
    parser.add_argument("--progress-lines", action="store_true", help="print PROGRESS lines for a program")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or install; returns 0 where all is well, 1 where something does not work, 2 for wrong arguments."""
    try:
        options = parse(arguments)
        there = package_list.complete() if options.command == "check" else []
        packages = package_list.needed(options.groups or there or ["segmentation"])
        if options.command == "check":
            return 0 if package_list.load([package.module for package in packages]) else 1

        def agree(text: str) -> bool:
            print(text, file=sys.stderr, flush=True)
            if options.yes:
                return True
            if not sys.stdin.isatty():
                raise InputError("Nobody can be asked here; add --yes to install without asking.")
            return input("Install now? [y/N] ").strip().lower() in ("y", "yes")

        with Stop().listening() as stop:
            progress = progress_printer(options.progress_lines)
            print(install.install(packages, options.torch, progress, stop.wished, agree))
    except InputError as error:
        return _fail(error, 2)
    except (Cancelled, WorkError) as error:
        return _fail(error, 1)
    return 0


def _fail(error: Exception, status: int) -> int:
    print(f"lnhg: {error}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
