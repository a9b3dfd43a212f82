"""The house keeps its rules, and each rule finds a fault that is planted in a copy of the house."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import layout_rules
import pytest
from layout_rules import RULES, Rule, kept_files

ROOT = Path(__file__).parents[1]
SKIPPED_SUFFIXES = {".safetensors", ".pyc"}
CORE, LIBRARY, TRAINING = (
    "LNHGSegmentation/LNHGLib",
    "LNHGSegmentation/LNHGSegmentationLib",
    "LNHGTraining/LNHGTrainingLib",
)
S4EXT = (ROOT / "LNHG.s4ext").read_text()

PLANTED = [  # rule, file, what is put in (None: the file is removed), what the rule says
    ("cmake_lists_name_every_file", f"{CORE}/forgotten.py", "", "forgotten.py is not in MODULE_PYTHON_SCRIPTS"),
    (
        "cmake_lists_name_every_file",
        "LNHGTraining/Resources/new.toml",
        "",
        "new.toml is not in MODULE_PYTHON_RESOURCES",
    ),
    (
        "cmake_lists_name_every_file",
        f"{CORE}/image/volume.py",
        None,
        "LNHGLib/image/volume.py is in MODULE_PYTHON_SCRIPTS",
    ),
    (
        "resources_stay_apart",
        "LNHGTraining/CMakeLists.txt",
        "set(MODULE_PYTHON_RESOURCES ../x.png)",
        "leaves its module",
    ),
    (
        "resources_stay_apart",
        "LNHGTraining/CMakeLists.txt",
        "set(MODULE_PYTHON_RESOURCES Resources/UI/Run.ui)",
        "is a resource of two modules",
    ),
    ("module_folders_hold_one_script", "LNHGTraining/helper.py", "", "helper.py"),
    ("pictures_of_the_catalog_exist", "Resources/LNHG.png", None, "LNHG.png has no file"),
    ("checkout_stays_small_and_safe", "Testing/data/weights.pth", "", "weights.pth may run code"),
    ("checkout_stays_small_and_safe", "uv.lock", "", "uv.lock is committed"),
    ("no_path_of_a_machine", "Testing/note.md", "see /" + "home/somebody/ct", "note.md names"),
    ("pure_packages_know_nothing_above_them", f"{CORE}/a.py", "def f():\n    import slicer", "a.py imports slicer"),
    (
        "pure_packages_know_nothing_above_them",
        f"{CORE}/a.py",
        "from LNHGTrainingLib.data import crops as data",
        "imports LNHGTrainingLib",
    ),
    ("pure_packages_know_nothing_above_them", f"{TRAINING}/a.py", "import vtk.util", "a.py imports vtk.util"),
    (
        "slicer_loads_nothing_heavy_by_itself",
        f"{LIBRARY}/A.py",
        "if 1:\n    from torch import nn",
        "A.py imports torch.nn",
    ),
    (
        "slicer_takes_nothing_heavy_from_the_core",
        f"{CORE}/__init__.py",
        "__version__ = '0'\nimport skimage",
        "loads skimage",
    ),
    (
        "folders_of_the_core_import_one_way",
        f"{CORE}/image/a.py",
        "def f():\n    from LNHGLib.segmentation import lungs",
        "image/a.py imports LNHGLib.segmentation.lungs",
    ),
    *(
        ("folders_of_the_core_import_one_way", f"{CORE}/{folder}/a.py", f"from LNHGLib.{above} import b", "above it")
        for folder, above in (
            *(("files", "image"), ("stats", "image"), ("phantom", "files"), ("models", "measurement")),
            *(("measurement", "segmentation"), ("segmentation", "figures"), ("figures", "results")),
            *(("results", "batch"), ("batch", "report"), ("report", "reader_study"), ("reader_study", "cli")),
        )
    ),
    ("folders_of_the_core_import_one_way", f"{CORE}/errors.py", "from LNHGLib.cli import console", "errors.py imports"),
    ("the_command_line_is_on_top", f"{CORE}/batch/a.py", "from LNHGLib.cli import console", "a.py imports LNHGLib.cli"),
    ("the_command_line_is_on_top", f"{TRAINING}/data/a.py", "from LNHGTrainingLib.cli import train", "a.py imports"),
    (
        "the_command_line_is_on_top",
        f"{LIBRARY}/Scene/A.py",
        "from LNHGSegmentationLib.Panel import Widget",
        "A.py imports LNHGSegmentationLib.Panel.Widget",
    ),
    ("folders_are_small", f"{CORE}/reader_study/one_more.py", "", "reader_study holds 17 files"),
    (
        "only_one_file_of_a_package_knows_where_it_lies",
        f"{CORE}/models/a.py",
        "HERE = Path(__file__)",
        "a.py asks for its own __file__",
    ),
    (
        "parameters_stand_alone",
        f"{LIBRARY}/Panel/Parameter.py",
        "from LNHGSegmentationLib.Core import SegmentationLogic",
        "Parameter.py imports LNHGSegmentationLib.Core.SegmentationLogic",
    ),
    ("file_names_tell_the_layer", f"{LIBRARY}/panel_parts.py", "", "panel_parts.py is not CamelCase"),
    ("file_names_tell_the_layer", f"{CORE}/VolumeTools.py", "", "VolumeTools.py is not snake_case"),
    (
        "observers_remove_and_rebuild_nothing",
        f"{LIBRARY}/A.py",
        "class A:\n    def start(self):\n        self.addObserver(node, event, self._onClick)\n"
        "    def _onClick(self):\n        self._end()\n"
        "    def _end(self):\n        slicer.mrmlScene.RemoveNode(self.node)\n",
        "A.py: A._onClick is an observer and calls RemoveNode",
    ),
    ("files_and_functions_are_short", f"{CORE}/long.py", "x = 1\n" * 601, "long.py has 601 lines"),
    ("files_and_functions_are_short", f"{CORE}/long.py", "def f():\n" + "    x = 1\n" * 60, "long.py: f has 61 lines"),
    (
        "public_functions_of_the_core_say_what_they_take",
        f"{CORE}/image/a.py",
        'def f(one: np.ndarray, two: Grid) -> None:\n    """Do."""\n',
        "a.py: f says nothing of one, two",
    ),
    ("descriptions_agree", f"{CORE}/__init__.py", '__version__ = "9.9.9"', "version differs"),
    ("descriptions_agree", "LNHG.s4ext", S4EXT.replace("description ", "description Another "), "description differs"),
    ("requirement_files_agree", "requirements/runtime.txt", "numpy==1.0", "numpy>=2.0 is pinned as ['1.0']"),
    ("requirement_files_agree", "requirements/runtime.txt", "numpy==1.0", "numpy==1.0 has no hash"),
    ("requirement_files_agree", "requirements/extra.txt", "--index" + "-url x", "extra.txt names a host"),
    (
        "slicer_installs_what_the_project_needs",
        f"{CORE}/setup/package_list.py",
        "TORCH = Package('torch', '2.5', 'torch', 1, 1)",
        "torch>=2.5 is torch>=2.6 in pyproject.toml",
    ),
    ("readme_introduces_every_module", "README.md", "LNHG", "does not mention LNHGTraining"),
]


@pytest.fixture(scope="module")
def a_copy_of_the_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    house = tmp_path_factory.mktemp("house")
    for path in kept_files(ROOT):
        if path.suffix not in SKIPPED_SUFFIXES:
            copy = house / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    subprocess.run(["git", "init", "--quiet", str(house)], check=True)
    return house


@pytest.fixture
def plant(a_copy_of_the_house: Path) -> Iterator[Callable[[str, str | None], Path]]:
    """Put content into a file of the copy (None removes it); the file is mended after the test."""
    before: dict[Path, bytes | None] = {}

    def put(name: str, content: str | None) -> Path:
        path = a_copy_of_the_house / name
        before[path] = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        return a_copy_of_the_house

    yield put
    for path, content in before.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_house_keeps_the_rule(rule: Rule) -> None:
    faults = rule(ROOT)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("rule", "name", "content", "fault"), PLANTED)
def test_rule_finds_a_planted_fault(plant, rule: str, name: str, content: str | None, fault: str) -> None:
    house = plant(name, content)
    assert any(fault in each for each in getattr(layout_rules, rule)(house))


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, *_ in PLANTED}


def test_history_fits_the_extensions_index() -> None:
    assert not layout_rules.history_stays_small(ROOT)
    assert layout_rules.history_stays_small(ROOT, limit=1000)


def test_history_counts_what_a_clone_fetches_and_nothing_left_over(tmp_path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    (tmp_path / "kept").write_bytes(os.urandom(4000))
    (tmp_path / "left_over").write_bytes(os.urandom(40_000))
    for step in (["init", "-q"], ["add", "kept"], ["commit", "-qm", "x"], ["hash-object", "-w", "left_over"]):
        subprocess.run([*git, *step], check=True, capture_output=True)
    assert not layout_rules.history_stays_small(tmp_path, limit=10_000)
    assert layout_rules.history_stays_small(tmp_path, limit=3000)
