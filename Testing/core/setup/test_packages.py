"""The check that packages load, and their installation by the real pip from wheels that hold next to nothing."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fake_packages
import pytest
from LNHGLib import packages
from LNHGLib.errors import WorkError
from LNHGLib.setup import package_list, pip
from LNHGLib.setup import room as package_room

pytestmark = pytest.mark.slow


CORE = Path(packages.__file__).parents[1]
TRAINING = {package.name for package in package_list.needed(["training"])}


@pytest.fixture
def check(tmp_path):
    (tmp_path / "fine.py").write_text("__version__ = '1.2'")
    (tmp_path / "broken.py").write_text("raise OSError('libgone.so:\\n cannot open')")
    (tmp_path / "deadly.py").write_text("import os; os._exit(77)")

    def run(*names):
        code = "import sys; from LNHGLib.setup import package_list; sys.exit(not package_list.load(sys.argv[1:]))"
        command, search = [sys.executable, "-c", code, *names], {"PYTHONPATH": f"{tmp_path}:{CORE}"}
        done = subprocess.run(command, env=search, capture_output=True, text=True, check=False)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return fake_packages.make_template(tmp_path_factory.mktemp("template") / "python")


@pytest.fixture
def scratch(template, tmp_path):
    return fake_packages.Scratch(template, tmp_path)


@pytest.fixture
def installed(scratch):
    """A Python that has everything."""
    scratch.pip_install(*(name for name in fake_packages.NAMES if name not in ("light-the-torch", "openvino")))
    return scratch


def test_versions_of_what_loads_and_reasons_of_what_does_not(check):
    status, lines = check("fine", "broken", "absent")
    assert status == 1
    assert lines[-1] == {
        "trying": None,
        "versions": {"fine": "1.2"},
        "faults": {
            "broken": "OSError: libgone.so: cannot open",
            "absent": "ModuleNotFoundError: No module named 'absent'",
        },
    }


def test_the_last_line_names_the_package_that_ended_the_process(check):
    status, lines = check("fine", "deadly", "broken")
    assert status == 77
    assert lines[-1]["trying"] == "deadly"
    assert package_list.read_check(77, json.dumps(lines[-1])).faults == {
        "deadly": "loading it ended the process (status 77)"
    }


def test_all_well_ends_with_0(check):
    assert check("fine")[0] == 0


def test_the_program_itself_needs_no_package():
    code = "import sys; import LNHGLib.packages; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=CORE, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {package.module for package in (*package_list.SLICERS, *package_list.needed(["training"]))}


def test_checking_is_what_it_does_unless_told_otherwise(installed):
    done = installed.packages()
    assert done.returncode == 0
    assert set(json.loads(done.stdout.splitlines()[-1])["versions"]) == {
        *("torch", "torchvision", "matplotlib", "safetensors", "anyascii")
    }


def test_training_gets_what_it_needs_and_tensorboard_only_where_asked(scratch):
    done = scratch.packages("install", "training", "--yes")
    assert done.returncode == 0, done.stderr
    assert scratch.versions().keys() >= TRAINING
    assert "tensorboard" not in scratch.versions()
    assert done.stdout.startswith("All packages load: torch 2.9.0, torchvision 0.24.0, ")
    assert scratch.packages("check", "training").returncode == 0
    assert scratch.packages("install", "training", "tensorboard", "--yes").returncode == 0
    assert "tensorboard" in scratch.versions()


def test_packages_sizes_and_free_room_are_said_before_anything_is_changed(scratch):
    done = scratch.packages("install", "training")
    assert done.returncode == 2
    assert all(f"   {name}\n" in done.stderr for name in TRAINING)
    assert "Download: about " in done.stderr
    assert f"are free in {scratch.site}." in done.stderr
    assert "lnhg: Nobody can be asked here; add --yes to install without asking." in done.stderr
    assert scratch.versions().keys() == {"pip", "setuptools"} & scratch.versions().keys()


@pytest.mark.parametrize(("answer", "status"), [("n", 1), ("y", 0)])
def test_a_person_at_a_terminal_is_asked(installed, answer, status):
    subprocess.run([installed.python, "-m", "pip", "uninstall", "-qy", "tqdm"], capture_output=True, check=True)
    terminal, end = pty.openpty()
    os.write(terminal, f"{answer}\n".encode())
    done = subprocess.run(
        installed.command("install", "training"),
        cwd=CORE,
        env=installed.environment,
        stdin=end,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(terminal)
    os.close(end)
    assert "Install now? [y/N]" in done.stdout
    assert done.returncode == status
    assert ("tqdm" in installed.versions()) is (answer == "y")
    assert ("lnhg: Nothing was installed" in done.stderr) is (answer == "n")


def test_torch_is_chosen_by_the_installer_of_the_pytorch_extension(scratch):
    done = scratch.packages("install", "--yes", "--torch", "cpu")
    [called] = [line for line in done.stderr.splitlines() if line.startswith("light-the-torch was called")]
    assert called.endswith("torch>=2.6 torchvision>=0.21 --pytorch-computation-backend=cpu")
    assert "--constraint" in called


def test_torch_of_the_package_index_needs_no_other_site(scratch):
    done = scratch.packages("install", "--yes", "--torch", "pypi")
    assert done.returncode == 0, done.stderr
    assert "light-the-torch" not in scratch.versions()
    assert "torch" in scratch.versions()


def test_cpu_only_installs_openvino_and_nothing_of_torch(scratch):
    done = scratch.packages("install", "cpu", "--yes")
    assert done.returncode == 0, done.stderr
    assert {"openvino", "matplotlib", "safetensors", "anyascii"} <= scratch.versions().keys()
    assert not {"torch", "torchvision", "light-the-torch"} & scratch.versions().keys()
    assert done.stdout.startswith("All packages load: openvino 2026.4.1, matplotlib 3.10.0, ")
    checked = scratch.packages()  # without a group: what is there is enough
    assert checked.returncode == 0
    assert "openvino" in json.loads(checked.stdout.splitlines()[-1])["versions"]


def test_what_is_there_stays(installed):
    """The torch that the PyTorch extension brought, and Slicer's own packages in any version."""
    for name in ("torch", "numpy", "h5py"):
        fake_packages.write_wheel(installed.wheels, name, "99.0")
    before = installed.versions()
    done = installed.packages("install", "training", "--yes")
    assert done.returncode == 0
    assert "Download" not in done.stderr
    assert installed.versions() == before


def test_slicers_own_packages_are_not_changed_for_another_one(installed):
    subprocess.run([installed.python, "-m", "pip", "uninstall", "-qy", "h5py"], capture_output=True, check=True)
    fake_packages.write_wheel(installed.wheels, "numpy", "10.0")
    fake_packages.write_wheel(installed.wheels, "h5py", "3.14.0", requires=["numpy>=9.5"])
    done = installed.packages("install", "training", "--yes")
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("lnhg: The packages could not be installed (")
    assert "h5py" in sentence
    assert installed.versions()["numpy"] == "9.0"


def test_an_installation_that_was_killed_counts_as_missing_and_is_done_anew(installed):
    """As pip leaves it when it is killed: files are missing, and so is the one that it writes last."""
    (installed.site / "torch-2.9.0.dist-info" / "INSTALLER").unlink()
    (installed.site / "torch-2.9.0.dist-info" / "RECORD").unlink()
    (installed.site / "torch" / "__init__.py").unlink()
    (installed.site / "~orch").mkdir()
    done = installed.packages("install", "--yes")
    assert done.returncode == 0, done.stderr
    assert "   torch\n" in done.stderr
    assert (installed.site / "torch" / "__init__.py").exists()
    assert not (installed.site / "~orch").exists()


@pytest.mark.parametrize("name", ["torch", "matplotlib"])
def test_what_does_not_load_is_installed_anew(installed, name):
    module = installed.site / name / "__init__.py"
    module.write_text("raise ImportError('libcudnn.so.9: cannot open shared object file')")
    (installed.site / name / "left_over.so").touch()
    done = installed.packages("install", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"   {name}: ImportError: libcudnn.so.9: cannot open shared object file\n" in done.stderr
    assert "__version__" in module.read_text()
    assert not (module.parent / "left_over.so").exists()


def test_packages_that_do_not_load_after_all_are_named(scratch):
    fake_packages.write_wheel(scratch.wheels, "matplotlib", "3.10.1")
    (scratch.site / "sitecustomize.py").write_text("import sys; sys.modules['matplotlib'] = None")
    done = scratch.packages("install", "--yes")
    assert done.returncode == 1
    assert "were installed but do not work (matplotlib: ModuleNotFoundError: " in done.stderr.splitlines()[-1]


def test_without_a_network_one_sentence_says_so(scratch):
    variables = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    done = scratch.packages("install", "--yes", **variables)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "lnhg: The packages could not be downloaded, since this computer does not reach the package index ("
    )


def test_a_python_without_pip_is_told_how_to_get_it(scratch):
    scratch.pip_install("tqdm")
    (scratch.site / "pip").rename(scratch.site / "gone")
    for path in scratch.site.glob("pip-*.dist-info"):
        path.rename(scratch.site / "gone.info")
    done = scratch.packages("install", "--yes")
    assert done.returncode == 1
    assert "This Python has no pip; run " in done.stderr


def test_a_group_that_does_not_exist_is_refused(scratch):
    done = scratch.packages("install", "trainign", "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "lnhg: 'trainign' is no group of packages, expected segmentation or cpu or training or tensorboard; "
        "name one of these.\n"
    )


@pytest.mark.parametrize("by", ["cancel file", "signal"])
def test_an_installation_can_be_ended_while_pip_waits(scratch, tmp_path, by):
    """A package index that takes the call and never answers."""
    silent = socket.create_server(("127.0.0.1", 0))
    variables = {
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
    }
    task = tmp_path / "task"
    task.mkdir()
    if by == "cancel file":
        variables["LNHG_CANCEL_FILE"] = str(task / "cancel")
    process = subprocess.Popen(
        scratch.command("install", "--yes"),
        cwd=CORE,
        env=scratch.environment | variables,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    connection = silent.accept()[0]
    assert connection.recv(4096)
    told = time.monotonic()
    (task / "cancel").touch() if by == "cancel file" else process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert time.monotonic() - told < 3
    assert process.returncode == 1
    assert "lnhg: cancelled by the user." in errors
    assert connection.recv(4096) == b""  # pip is gone as well
    assert list(scratch.temporary.iterdir()) == []
    silent.close()


def test_progress_follows_the_downloads(monkeypatch, tmp_path):
    lines = [
        "Collecting torch>=2.6",
        "  Downloading https://there/cpu/torch-2.9.0%2Bcpu-cp312-cp312-linux_x86_64.whl.metadata (28 kB)",
        "Progress 28000 of 28000",
        "  Downloading https://there/cpu/torch-2.9.0%2Bcpu-cp312-cp312-linux_x86_64.whl (180.0 MB)",
        "Progress 90000000 of 180000000",
        "  Using cached sympy-1.14.0-py3-none-any.whl (6.0 MB)",
        "Installing collected packages: sympy, torch, torchvision",
    ]

    def run(_command, _changes, hear, _wished) -> int:
        for line in lines:
            hear(line)
        return 0

    told = []
    monkeypatch.setattr(pip, "run", run)
    monkeypatch.setattr(pip.importlib.metadata, "version", lambda _name: "25.0")
    pip.Pip(tmp_path, 200, lambda *words: told.append(words), lambda: False).install(["torch"])
    assert [text for _fraction, text in told] == [
        "downloading torch (180 MB)",
        "downloading torch, 90 of 180 MB",
        "downloading sympy (6 MB)",
        "unpacking sympy, torch and 1 more",
    ]
    assert [fraction for fraction, _text in told] == pytest.approx([0, 0.36, 0.72, 0.744], abs=0.001)


def test_cuda_is_counted_where_it_will_come(monkeypatch):
    torch = package_list.TORCH[:1]
    monkeypatch.setattr(package_room.shutil, "which", lambda _name: None)
    assert package_room.Room(torch).download_mb == 250
    assert package_room.Room(torch, "cu128").download_mb == package_room.CUDA_MB[0]
    assert package_room.Room(torch, "cpu").download_mb == 250
    monkeypatch.setattr(package_room.shutil, "which", lambda _name: "/usr/bin/nvidia-smi")
    assert package_room.Room(torch).download_mb == package_room.CUDA_MB[0]


def test_too_little_room_and_a_folder_that_cannot_be_written_are_refused(monkeypatch, tmp_path):
    room = package_room.Room(package_list.needed(["segmentation"]), "cpu")
    monkeypatch.setattr(package_room, "package_folder", lambda: tmp_path)
    monkeypatch.setattr(package_room, "free_mb", lambda _folder: 900)
    with pytest.raises(WorkError, match=r"no room for the packages: 900 MB are free in .*, 1\.8 GB are needed"):
        room.require()
    monkeypatch.setattr(package_room, "package_folder", lambda: tmp_path / "not there")
    with pytest.raises(WorkError, match="cannot be written; start Slicer once as an administrator"):
        room.require()
