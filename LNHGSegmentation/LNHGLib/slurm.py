"""`lnhg batch` on the nodes of a Slurm cluster: a worked example with dask-jobqueue that can be used as it is.

    python -m LNHGLib.slurm --workers 8 --cpus 4 --memory 16GB --walltime 08:00:00 INPUT OUT --resume

starts a Dask scheduler here, submits a Slurm job a worker, again when it ends too early, and runs `lnhg batch`
with all that is left of the arguments. INPUT, OUT and this Python have to be on a file system that all nodes share.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

THREADS = 2  # one to compute, one to read the next scan and write the last result meanwhile


def cluster_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `dask_jobqueue.SLURMCluster` is made with: a job is one worker process."""
    arguments = {
        "cores": THREADS,
        "processes": 1,
        "job_cpu": options.cpus,
        "memory": options.memory,
        "walltime": options.walltime,
        "python": sys.executable,
        "job_name": "lnhg",
        "log_directory": options.logs,
    }
    if options.partition:
        arguments["queue"] = options.partition
    if options.account:
        arguments["account"] = options.account
    if options.interface:
        arguments["interface"] = options.interface
    if options.gpus:
        arguments["job_extra_directives"] = [f"--gres=gpu:{options.gpus}"]
    return arguments


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options for Slurm, and the arguments for `lnhg batch`."""
    parser = argparse.ArgumentParser(prog="python -m LNHGLib.slurm", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--workers", type=int, default=4, help="Slurm jobs, each one worker (default: %(default)s)")
    add("--cpus", type=int, default=4, help="CPUs a job (default: %(default)s)")
    add("--gpus", type=int, default=0, help="GPUs a job (default: %(default)s)")
    add("--memory", default="16GB", help="memory a job (default: %(default)s)")
    add("--walltime", default="08:00:00", help="longest time a job (default: %(default)s)")
    add("--partition", help="of Slurm; default: the cluster's")
    add("--account", help="of Slurm; default: yours")
    add("--interface", help="network interface that nodes reach each other by, for example ib0")
    add("--logs", default="slurm-logs", help="folder for the jobs' logs (default: %(default)s)")
    return parser.parse_known_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit status of `lnhg batch`."""
    options, rest = parse(arguments)
    try:
        from dask_jobqueue import SLURMCluster
    except ModuleNotFoundError:
        print("lnhg: This needs the package dask-jobqueue, which is not installed; install it.", file=sys.stderr)
        return 2
    from LNHGLib import __main__ as cli

    with SLURMCluster(**cluster_arguments(options)) as cluster:
        cluster.adapt(minimum_jobs=options.workers, maximum_jobs=options.workers)
        return cli.main(["batch", *rest, "--scheduler", cluster.scheduler_address])


if __name__ == "__main__":
    sys.exit(main())
