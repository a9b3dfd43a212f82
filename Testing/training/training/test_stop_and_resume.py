"""A killed or stopped training goes on as if nothing had happened; one that no longer improves ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import small_data
import torch
from LNHGLib.errors import InputError
from LNHGTrainingLib.config import SegmenterConfig, build, override, read
from LNHGTrainingLib.training import checkpoint, detector, log, run, validate
from LNHGTrainingLib.training import segmenter as train_gan
from LNHGTrainingLib.training.log import RunLog
from LNHGTrainingLib.training.sigterm import STATUS, Stopped, StopSignal
from tiny_model import write_model

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[3]
BRANCHES = {"segmenter": train_gan, "detector": detector}
TINY = ["batch=2", "validate_crops=1", "data.background=[]", "data.train_folds=[0]", "data.validation_folds=[1]"]
NETWORKS = {
    "segmenter": [
        *("generator.width=2", "critic.width=2", "sampling.sides=[[16, 16, 16]]", "loss.adversarial_from_step=1")
    ],
    "detector": ["detector.width=4", "sampling.tile=32"],
}
FOREVER = """
import sys
from pathlib import Path
import {module} as module
from LNHGTrainingLib.__main__ import main

plain = module.{name}

def again_and_again(*arguments, **named):
    Path({mark!r}).touch()
    while True:
        plain(*arguments, **named)

module.{name} = again_and_again
sys.exit(main(sys.argv[1:]))
"""
"""`lnhg-train` in which a function does its work again and again, for ever."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    small_data.write_crops(path)
    return path


def environment() -> dict[str, str]:
    paths = [str(ROOT / "LNHGSegmentation"), str(ROOT / "LNHGTraining"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def start(
    folder: Path,
    out: Path,
    *settings: str,
    branch: str = "segmenter",
    program: tuple[str, ...] = ("-m", "LNHGTrainingLib"),
) -> subprocess.Popen:
    """`lnhg-train train` in a process group of its own."""
    changes = [word for setting in (*TINY, *NETWORKS[branch], *settings) for word in ("--set", setting)]
    recipe = small_data.RESOURCES / f"{branch}.toml"
    command = [sys.executable, *program, "train", branch, "--config", str(recipe), *changes]
    return subprocess.Popen(
        [*command, "--data", str(folder), str(out)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(autouse=True)
def all_are_ended(monkeypatch):
    """A process that does not end as it should goes with its test."""
    started = []
    plain = subprocess.Popen.__init__

    def begin(process: subprocess.Popen, *arguments: object, **named: object) -> None:
        plain(process, *arguments, **named)
        started.append(process)

    monkeypatch.setattr(subprocess.Popen, "__init__", begin)
    yield
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(happened: Callable[[], object], process: subprocess.Popen) -> None:
    while not happened():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def train(folder: Path, out: Path, *settings: str, resume: bool = False, branch: str = "segmenter") -> None:
    config = override(read(small_data.RESOURCES / f"{branch}.toml"), [*TINY, *NETWORKS[branch], *settings])
    config["data"]["folder"] = str(folder)
    BRANCHES[branch].train(config, out, resume)


def assert_same_run(one: Path, two: Path) -> None:
    a, b = checkpoint.load(one / "last.pt"), checkpoint.load(two / "last.pt")
    for name in ("step", "best", "epochs_without_improvement"):
        assert a[name] == b[name]
    assert torch.equal(a["random"], b["random"])
    segmenter = "critic" in a
    for part in ("generator", "ema", "critic") if segmenter else ("detector", "ema"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    optimizer = "generator_optimizer" if segmenter else "optimizer"
    assert torch.equal(*(state[optimizer]["state"][0]["exp_avg"] for state in (a, b)))
    assert epochs(one) == epochs(two)


def epochs(out: Path) -> list[list[str]]:
    """The rows of `epochs.csv` without the seconds."""
    return [line.split(",")[:-1] for line in (out / "epochs.csv").read_text().splitlines()]


def test_a_folder_takes_one_training_at_a_time_and_loses_none(folder, tmp_path):
    """Register N3."""
    out = tmp_path / "run"
    process = start(folder, out, "epoch_steps=2", "steps=2000")
    wait_for((out / "last.pt").exists, process)
    with pytest.raises(InputError, match=rf"being written by another run \(process {process.pid} on .*another OUT"):
        train(folder, out, "epoch_steps=2", "steps=4", resume=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = (out / "last.pt").read_bytes()
    with pytest.raises(InputError, match=r"run holds a training, which would be overwritten, .*go on with --resume"):
        train(folder, out, "epoch_steps=2", "steps=4")
    assert (out / "last.pt").read_bytes() == kept


def test_a_folder_of_another_network_is_not_gone_on_with(folder, tmp_path):
    train(folder, tmp_path / "run", "epoch_steps=2", "steps=2")
    with pytest.raises(InputError, match=r"last\.pt is of another network, expected the detector"):
        train(folder, tmp_path / "run", resume=True, branch="detector")
    with pytest.raises(InputError, match=r"last\.pt is of another network, expected the generator"):
        train(folder, tmp_path / "run", "generator.width=4", resume=True)


def test_a_killed_training_goes_on_to_the_result_of_an_uninterrupted_one(folder, tmp_path):
    out = tmp_path / "killed"
    process = start(folder, out, "epoch_steps=2", "steps=2000")
    wait_for((out / "last.pt").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    reached = checkpoint.load(out / "last.pt")["step"]
    assert reached % 2 == 0
    with (out / "epochs.csv").open("a") as table:
        table.write(f"{reached + 2}," + "0," * 4 + "\n")  # as a kill between the log and the checkpoint leaves it
    settings = "epoch_steps=2", f"steps={reached + 4}"
    train(folder, out, *settings, resume=True)
    train(folder, tmp_path / "whole", *settings)
    assert_same_run(tmp_path / "whole", out)


def test_sigterm_to_all_processes_writes_a_checkpoint_to_go_on_from(folder, tmp_path):
    """Schedulers signal the whole group; the run's workers must not die before it."""
    out = tmp_path / "stopped"
    process = start(folder, out, "epoch_steps=1000", "steps=100000", "workers=2")
    wait_for(lambda: list(out.glob("tensorboard/*")), process)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGTERM)
    errors = process.communicate()[1]
    assert process.returncode == STATUS == 143, errors
    reached = checkpoint.load(out / "last.pt")["step"]
    assert f"Stopped by SIGTERM after step {reached}; go on with --resume." in errors
    settings = "epoch_steps=1000", f"steps={reached + 2}"
    train(folder, out, *settings, resume=True)
    train(folder, tmp_path / "whole", *settings)
    assert_same_run(tmp_path / "whole", out)


@pytest.mark.parametrize("branch", ["segmenter", "detector"])
def test_sigterm_while_validating_is_answered_at_once_and_costs_no_result(folder, tmp_path, branch):
    """It comes in the middle of a crop that takes for ever; the resumed run judges that epoch after all."""
    out, mark = tmp_path / "stopped", tmp_path / "validating"
    draw = {"segmenter": "center_component", "detector": "detect"}[branch]
    settings = "epoch_steps=2", "steps=4"
    program = "-c", FOREVER.format(module="LNHGTrainingLib.training.validate", name=draw, mark=str(mark))
    process = start(folder, out, *settings, branch=branch, program=program)
    wait_for(mark.exists, process)
    told = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert time.monotonic() - told < 10
    assert process.returncode == STATUS == 143, errors
    assert "Stopped by SIGTERM after step 2; go on with --resume." in errors
    assert checkpoint.load(out / "last.pt")["step"] == 2
    train(folder, out, *settings, resume=True, branch=branch)
    train(folder, tmp_path / "whole", *settings, branch=branch)
    assert_same_run(tmp_path / "whole", out)


def test_sigterm_while_two_processes_validate_leaves_one_checkpoint(folder, tmp_path):
    out, mark = tmp_path / "stopped", tmp_path / "validating"
    program = tmp_path / "program.py"
    program.write_text(
        FOREVER.format(module="LNHGTrainingLib.training.validate", name="center_component", mark=str(mark))
    )
    torchrun = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)
    process = start(folder, out, "epoch_steps=2", "steps=4", "micro_batches=2", "validate_crops=2", program=torchrun)
    wait_for(mark.exists, process)
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)  # torchrun hands it on
    errors = process.communicate(timeout=60)[1]
    assert time.monotonic() - told < 10
    assert "Stopped by SIGTERM after step 2; go on with --resume." in errors
    state = checkpoint.load(out / "last.pt")
    assert (state["step"], state["validated_step"]) == (2, 0)


def test_a_run_that_is_stopped_in_its_last_validation_is_not_done(folder, tmp_path, monkeypatch):
    settings = "epoch_steps=2", "steps=2"

    def told(*_: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("SIGTERM did not break off the work")

    plain = validate.center_component
    monkeypatch.setattr(validate, "center_component", told)
    with pytest.raises(Stopped, match="after step 2"):
        train(folder, tmp_path, *settings)
    monkeypatch.setattr(validate, "center_component", plain)
    assert not (tmp_path / "best.pt").exists()
    train(folder, tmp_path, *settings, resume=True)
    assert checkpoint.load(tmp_path / "best.pt")["step"] == 2


def test_sigterm_while_data_are_prepared_is_answered_at_once(folder, tmp_path, monkeypatch):
    def told(*_: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("SIGTERM did not break off the work")

    monkeypatch.setattr(run, "load_sources", told)
    with pytest.raises(Stopped, match="before the first step"):
        train(folder, tmp_path, "steps=2")


@pytest.mark.parametrize("command", ["crossvalidate", "evaluate"])
def test_other_commands_end_on_sigterm_and_leave_nothing_behind(folder, tmp_path, command):
    """A nodule is scored for ever; SIGTERM comes while `crossvalidate` keeps drawings in a temporary folder."""
    train(folder, tmp_path / "run", "epoch_steps=1", "steps=1")
    write_model(tmp_path / "model")
    mark, out, temporary = tmp_path / "drawing", tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    what = {"crossvalidate": [str(tmp_path / "run" / "last.pt"), str(out), "--name", "n", "--device", "cpu"]}
    what["evaluate"] = ["--model", str(tmp_path / "model"), str(out), "--device", "cpu"]
    program = FOREVER.format(module="LNHGTrainingLib.evaluation.crops", name="score_crop", mark=str(mark))
    data = ["--crops", str(folder / "crops" / "luna16_crops.h5"), "--table", str(folder / "crops" / "luna16_crops.csv")]
    process = subprocess.Popen(
        [sys.executable, "-c", program, command, *what[command], *data],
        env=environment() | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(mark.exists, process)
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert time.monotonic() - told < 10
    assert process.returncode == STATUS
    assert "Stopped by SIGTERM before it was done; give the same command again." in errors
    assert not out.exists()
    assert list(temporary.iterdir()) == []


def test_a_checkpoint_of_the_first_version_goes_on_with_one_micro_batch(folder, tmp_path):
    config = small_data.training_config("segmenter", folder)
    first = train_gan.SegmenterRun(build(SegmenterConfig, config), torch.device("cpu"))
    state = first.state()
    del state["epochs_without_improvement"], state["config"]["micro_batches"]
    checkpoint.save(tmp_path / "last.pt", state | {"step": 3})
    later = train_gan.SegmenterRun(build(SegmenterConfig, config), torch.device("cpu"))
    later.restore(tmp_path / "last.pt")
    assert (later.step, later.epochs_without_improvement, later.micro_batches) == (3, 0, 1)


def test_the_signal_is_the_systems_again_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.given
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.given
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("branch", "module", "score"), [("segmenter", train_gan, "dice_by_size"), ("detector", detector, "crop_froc")]
)
def test_training_ends_when_patience_does(folder, tmp_path, monkeypatch, branch, module, score):
    """Register L5: `best.pt` is the checkpoint of the best score."""
    scores = iter([0.2, 0.3, 0.3, 0.1, 0.9])

    def scored(*_: object) -> object:
        value = next(scores)
        return {1 if branch == "detector" else "dice": value}

    monkeypatch.setattr(module, score, scored)
    config = small_data.training_config(branch, folder) | {"steps": 9, "epoch_steps": 1, "batch": 1, "patience": 2}
    module.train(config, tmp_path)
    assert (checkpoint.load(tmp_path / "last.pt")["step"], checkpoint.load(tmp_path / "best.pt")["step"]) == (4, 2)
    module.train(config, tmp_path, resume=True)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 4


def test_an_epoch_leaves_a_line_and_a_picture(folder, tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for branch, module in (("segmenter", train_gan), ("detector", detector)):
        config = small_data.training_config(branch, folder) | {"steps": 1, "batch": 1}
        module.train(config, tmp_path / branch)
        events = EventAccumulator(str(tmp_path / branch / "tensorboard")).Reload()
        assert len(events.Tags()["images"]) == 1
        assert "step 1/1: " in capsys.readouterr().err


def test_a_log_forgets_epochs_that_were_not_kept(tmp_path):
    with RunLog(tmp_path, 4, 0) as log:
        log.epoch(2, {"dice": 0.25}, {})
        log.epoch(4, {"dice": 0.5}, {})
    with RunLog(tmp_path, 4, 2) as log:
        log.epoch(4, {"dice": 0.75}, {})
    assert [line[:6] for line in (tmp_path / "epochs.csv").read_text().splitlines()] == ["step,d", "2,0.25", "4,0.75"]


def test_a_log_needs_no_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(log.importlib.util, "find_spec", lambda _name: None)
    with RunLog(tmp_path, 4, 0) as run_log:
        run_log.step(1, {"mse": 0.5})
        run_log.epoch(1, {"dice": 0.25}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["epochs.csv"]
