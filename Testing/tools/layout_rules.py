"""The rules of the house: what is shipped, who may import whom, how long things may be, what must agree.

Each rule is a function that takes the repository's folder and returns its faults as sentences.
Testing/test_layout.py holds the house to them, and shows that each can fail.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from PIL import Image

MODULES = ("LNHGSegmentation", "LNHGTraining")
SLICER = ("slicer", "qt", "vtk", "ctk", "PythonQt")
HEAVY = ("torch", "torchvision", "skimage")
CORE, LIBRARY, TRAINING = (
    "LNHGSegmentation/LNHGLib",
    "LNHGSegmentation/LNHGSegmentationLib",
    "LNHGTraining/LNHGTrainingLib",
)
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_FOLDER_FILES = 600, 60, 16
MAX_FILE_BYTES, MAX_CHECKOUT_BYTES, MAX_PACK_BYTES = 45 * 2**20, 100 * 2**20, 70 * 2**20
RAW = "https://raw.githubusercontent.com/lnhg-project/SlicerLNHG/main/"

PLAIN = {"int", "str", "float", "bool", "Path", "None", "bytes"}
REMOVING = {"RemoveNode", "RemoveSegment", "RemoveAllSegments", "Clear", "SetViewArrangement", "deleteLater"}

BASE = ("__version__", "errors", "paths")
BELOW: dict[str, tuple[str, ...]] = {  # what each folder of the core may import beside itself and BASE
    "files": (),
    "stats": (),
    "image": ("files",),
    "phantom": ("image",),
    "models": ("files", "image"),
    "measurement": ("files", "image"),
    "segmentation": ("files", "image", "models", "measurement"),
    "figures": ("files", "image", "models", "measurement", "segmentation"),
    "results": ("files", "image", "models", "measurement", "segmentation", "figures"),
    "report": ("files", "image", "models", "measurement", "segmentation", "figures", "results"),
    "batch": ("files", "image", "models", "measurement", "segmentation", "figures", "results"),
    "setup": ("files", "cli"),  # runs before the packages are there: needs nothing beyond Python itself
    "reader_study": (
        *("files", "image", "models", "measurement", "segmentation", "figures", "results", "stats"),
        "batch",  # whose results it takes
    ),
}
"""The command line imports them all; nothing imports the command line but what `python -m` runs."""
ENTRIES = ("__main__.py", "packages.py", "slurm.py")
"""Files that `python -m` runs; they may import everything."""
OWN_PATHS = ("paths.py", "Paths.py", "BatchScenes.py")
"""Files that may ask where they lie; the last one is run by its path."""

Rule = Callable[[Path], list[str]]


def relative_files(folder: Path, pattern: str) -> set[str]:
    paths = (path for path in folder.rglob(pattern) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def kept_files(root: Path) -> list[Path]:
    """Return the files that are or could be committed."""
    list_files = "git -c safe.directory=* ls-files -z --cached --others --exclude-standard"
    names = subprocess.run(list_files.split(), cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    return [root / name for name in sorted(set(names)) if name and (root / name).is_file()]


def python_files(root: Path) -> list[Path]:
    return [path for path in kept_files(root) if path.suffix == ".py"]


def cmake_list(module: Path, name: str) -> list[str]:
    text = (module / "CMakeLists.txt").read_text()
    found = re.search(rf"set\({name}\s(.*?)\)", text, re.DOTALL)
    return found[1].replace("${MODULE_NAME}", module.name).split() if found else []


def cmake_variables(root: Path) -> dict[str, str]:
    return dict(re.findall(r'^set\((\w+) "(.*)"\)$', (root / "CMakeLists.txt").read_text(), re.MULTILINE))


def s4ext_fields(root: Path) -> dict[str, str]:
    lines = (line.strip() for line in (root / "LNHG.s4ext").read_text().splitlines())
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def pyproject(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())


def imports(node: ast.AST, *, inside_functions: bool = True) -> Iterator[str]:
    """Yield every imported name, dotted; `from a import b` yields `a.b`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module or ''}.{alias.name}" for alias in child.names)
        elif inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(child, inside_functions=inside_functions)


def forbidden_imports(path: Path, banned: tuple[str, ...], *, inside_functions: bool = True) -> list[str]:
    names = imports(ast.parse(path.read_text()), inside_functions=inside_functions)
    return [f"{path.name} imports {name}" for name in names if any(f"{name}.".startswith(f"{ban}.") for ban in banned)]


def slicer_side(root: Path) -> list[Path]:
    """Return the files that Slicer loads at start."""
    library = sorted((root / "LNHGSegmentation/LNHGSegmentationLib").rglob("*.py"))
    return [root / "LNHGSegmentation/LNHGSegmentation.py", root / "LNHGTraining/LNHGTraining.py", *library]


# What is shipped ------------------------------------------------------------------------------------


def cmake_lists_name_every_file(root: Path) -> list[str]:
    faults = []
    for module in (root / name for name in MODULES):
        for list_name, pattern, folder in (
            ("MODULE_PYTHON_SCRIPTS", "*.py", ""),
            ("MODULE_PYTHON_RESOURCES", "*", "Resources"),
        ):
            listed = cmake_list(module, list_name)
            there = {name if not folder else f"{folder}/{name}" for name in relative_files(module / folder, pattern)}
            where = f"{list_name} of {module.name}"
            faults += [f"{name} is not in {where}, so it is not shipped" for name in sorted(there - set(listed))]
            faults += [f"{name} is in {where}, but there is no such file" for name in sorted(set(listed) - there)]
            faults += [f"{name} stands twice in {where}" for name, count in Counter(listed).items() if count > 1]
    return faults


def resources_stay_apart(root: Path) -> list[str]:
    """Two modules' files are installed into one folder: equal names would overwrite each other, `..` is dropped."""
    names = [name for module in MODULES for name in cmake_list(root / module, "MODULE_PYTHON_RESOURCES")]
    faults = [f"{name} is a resource of two modules" for name, count in Counter(names).items() if count > 1]
    return faults + [f"{name} leaves its module" for name in names if ".." in name or name.startswith("/")]


def module_folders_hold_one_script(root: Path) -> list[str]:
    """Slicer takes every `.py` beside a module's file for a module."""
    found = {name: sorted(path.name for path in (root / name).glob("*.py")) for name in MODULES}
    return [f"{name}/ holds {scripts}" for name, scripts in found.items() if scripts != [f"{name}.py"]]


def pictures_of_the_catalog_exist(root: Path) -> list[str]:
    variables = cmake_variables(root)
    urls = [variables["EXTENSION_ICONURL"], *variables["EXTENSION_SCREENSHOTURLS"].split()]
    faults = [f"{url} is no raw address of this repository" for url in urls if not url.startswith(RAW)]
    faults += [f"{url} has no file" for url in urls if not (root / url.removeprefix(RAW)).is_file()]
    icons = [*root.glob("Resources/LNHG.png"), *root.glob("LNHG*/Resources/Icons/LNHG*.png")]
    return faults + [f"{icon.name} is not 128 x 128" for icon in icons if Image.open(icon).size != (128, 128)]


def checkout_stays_small_and_safe(root: Path) -> list[str]:
    files = kept_files(root)
    sizes = {path: path.stat().st_size for path in files}
    faults = [f"{path.name} has {size} bytes" for path, size in sizes.items() if size > MAX_FILE_BYTES]
    faults += [f"the checkout has {sum(sizes.values())} bytes"] * (sum(sizes.values()) > MAX_CHECKOUT_BYTES)
    faults += [
        f"{path.name} may run code when loaded" for path in files if path.suffix in {".pt", ".pth", ".pkl", ".ckpt"}
    ]
    return faults + ["uv.lock is committed: requirements/*.txt are the pins"] * (root / "uv.lock" in files)


def history_stays_small(root: Path, limit: int = MAX_PACK_BYTES) -> list[str]:
    """The Extensions Index refuses a clone of more than 100 MB, history included: count what a clone of HEAD has."""
    git = "git -c safe.directory='*'"
    pack = f"set -e -o pipefail; {git} rev-list --objects HEAD | {git} pack-objects --stdout -q | wc -c"
    found = subprocess.run(["bash", "-c", pack], cwd=root, capture_output=True, text=True, check=False)
    size = int(found.stdout) if found.returncode == 0 else 0
    return [f"a clone fetches {size} bytes, expected at most {limit}"] * (size > limit)


def no_path_of_a_machine(root: Path) -> list[str]:
    pattern = re.compile(r"(?<![\w.~$}>/-])/(?:work|root|home|Users|tmp)/\w")
    faults = []
    for path in kept_files(root):
        content = path.read_bytes()
        if b"\0" not in content and (found := pattern.search(content.decode(errors="replace"))):
            faults.append(f"{path.name} names {found[0]}...")
    return faults


# Who may import whom --------------------------------------------------------------------------------


def pure_packages_know_nothing_above_them(root: Path) -> list[str]:
    above = {
        "LNHGSegmentation/LNHGLib": (*SLICER, "LNHGSegmentationLib", "LNHGTrainingLib"),
        "LNHGTraining/LNHGTrainingLib": (*SLICER, "LNHGSegmentationLib"),
    }
    files = ((path, banned) for folder, banned in above.items() for path in sorted((root / folder).rglob("*.py")))
    return [fault for path, banned in files for fault in forbidden_imports(path, banned)]


def slicer_loads_nothing_heavy_by_itself(root: Path) -> list[str]:
    faults = [fault for path in slicer_side(root) for fault in forbidden_imports(path, HEAVY, inside_functions=False)]
    training = ("LNHGTrainingLib",)
    return faults + [fault for path in slicer_side(root) for fault in forbidden_imports(path, training)]


def core_module(root: Path, name: str) -> str | None:
    """Return the longest part of a dotted name that is a module or a folder of the core."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = root / "LNHGSegmentation" / Path(*parts[:length])
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return ".".join(parts[:length])
    return None


def slicer_takes_nothing_heavy_from_the_core(root: Path) -> list[str]:
    """Import, in a fresh process, all that the Slicer side imports from the core."""
    names = {name for path in slicer_side(root) for name in imports(ast.parse(path.read_text()))}
    modules = sorted({core_module(root, name) for name in names if name.split(".")[0] == "LNHGLib"} - {None})
    if len(modules) < 5:
        return [f"only {modules} of the core are imported by the Slicer side: the rule looks in the wrong place"]
    code = f"import sys, {', '.join(modules)}; print(*(set({HEAVY}) & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root / "LNHGSegmentation", capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"importing {modules} fails: {done.stderr.strip().splitlines()[-1]}"]
    return [f"importing {modules} loads {name}" for name in done.stdout.split()]


def folders_of_the_core_import_one_way(root: Path) -> list[str]:
    faults = []
    for path in sorted((root / CORE).rglob("*.py")):
        folder = path.relative_to(root / CORE).parts[0]
        if folder in ("cli", *ENTRIES):
            continue
        for name in imports(ast.parse(path.read_text())):
            package, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if package != "LNHGLib" or target in (folder, folder.removesuffix(".py"), *BASE):
                continue
            if target not in BELOW.get(folder, tuple(BELOW)):
                faults.append(f"{folder}/{path.name} imports {name}, which stands above it")
    return faults


def the_command_line_is_on_top(root: Path) -> list[str]:
    """Nothing imports a package's `cli` but its own files and `__main__`; the Slicer side's panel likewise."""
    faults = []
    for package, top, users in (
        (CORE, "LNHGLib.cli", ("cli", "setup", *ENTRIES)),
        (TRAINING, "LNHGTrainingLib.cli", ("cli", "__main__.py")),
        (LIBRARY, "LNHGSegmentationLib.Panel", ("Panel",)),
    ):
        for path in sorted((root / package).rglob("*.py")):
            if path.relative_to(root / package).parts[0] not in users:
                faults += forbidden_imports(path, (top,))
    return faults


def folders_are_small(root: Path) -> list[str]:
    folders = {path.parent for package in (CORE, LIBRARY, TRAINING) for path in (root / package).rglob("*.py")}
    counts = {folder: len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) for folder in sorted(folders)}
    return [
        f"{folder.relative_to(root)} holds {count} files, expected at most {MAX_FOLDER_FILES}"
        for folder, count in counts.items()
        if count > MAX_FOLDER_FILES
    ]


def only_one_file_of_a_package_knows_where_it_lies(root: Path) -> list[str]:
    files = (path for package in (CORE, LIBRARY, TRAINING) for path in sorted((root / package).rglob("*.py")))
    return [
        f"{path.name} asks for its own __file__: take the constants of paths.py"
        for path in files
        if path.name not in OWN_PATHS and re.search(r"\b__file__\b", path.read_text())
    ]


def parameters_stand_alone(root: Path) -> list[str]:
    """The parameters import of ours the default display style alone; the panel's entry nothing of the core."""
    library = root / LIBRARY
    faults = forbidden_imports(library / "Panel/Parameter.py", ("LNHGSegmentationLib", "LNHGLib"))
    faults = [fault for fault in faults if "LNHGLib.figures.colors.DEFAULT_STYLE" not in fault]
    return faults + forbidden_imports(library / "Panel/Widget.py", ("LNHGLib",))


def file_names_tell_the_layer(root: Path) -> list[str]:
    pure = [path for name in (CORE, TRAINING) for path in sorted((root / name).rglob("*.py"))]
    slicer = (path for path in sorted((root / LIBRARY).rglob("*.py")) if path.stem != "__init__")
    faults = [f"{path.name} is not snake_case" for path in pure if path.stem != path.stem.lower()]
    return faults + [
        f"{path.name} is not CamelCase" for path in slicer if not re.fullmatch(r"([A-Z][a-z]*)+", path.stem)
    ]


def observers_remove_and_rebuild_nothing(root: Path) -> list[str]:
    """Slicer goes on with a node, a scene or a layout after its observers were called: what removes waits for a timer.

    Follows calls of methods of the same class; what is handed to a timer is not called.
    """
    faults = []
    for path in slicer_side(root):
        for cls in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)):
            methods = {node.name: node for node in cls.body if isinstance(node, ast.FunctionDef)}
            calls = {name: list(_calls(node)) for name, node in methods.items()}
            watched = {
                argument.attr
                for node in methods.values()
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "addObserver"
                for argument in call.args[2:]
                if isinstance(argument, ast.Attribute)
            }
            for name in sorted(watched & methods.keys()):
                reached = [name]
                for each in reached:  # grows while it is walked
                    reached += [call for call in calls[each] if call in methods and call not in reached]
                found = sorted({call for each in reached for call in calls[each]} & REMOVING)
                faults += [f"{path.name}: {cls.name}.{name} is an observer and calls {call}" for call in found]
    return faults


def _calls(node: ast.AST) -> Iterator[str]:
    """Yield the names of what is called, outside of lambdas."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            yield child.func.attr
        if not isinstance(child, ast.Lambda):
            yield from _calls(child)


# How long things may be -----------------------------------------------------------------------------


def files_and_functions_are_short(root: Path) -> list[str]:
    faults = []
    for path in python_files(root):
        text = path.read_text()
        lines = text.count("\n")
        faults += [f"{path.name} has {lines} lines"] * (lines > MAX_FILE_LINES)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                faults += [f"{path.name}: {node.name} has {length} lines"] * (length > MAX_FUNCTION_LINES)
    return faults


def public_functions_of_the_core_say_what_they_take(root: Path) -> list[str]:
    """Two or more arguments that are no plain number, text or path stand under `Args:`; ruff sees that all do."""
    faults = []
    for path in sorted((root / CORE).rglob("*.py")):
        tree = ast.parse(path.read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        for node in (each for body in (tree.body, *(cls.body for cls in classes)) for each in body):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            rich = [
                each.arg
                for each in arguments
                if each.annotation and not {*ast.unparse(each.annotation).strip("'").split(" | ")} <= PLAIN
            ]
            if len(rich) > 1 and "Args:" not in (ast.get_docstring(node) or ""):
                faults.append(f"{path.name}: {node.name} says nothing of {', '.join(rich)} under Args")
    return faults


# What must agree ------------------------------------------------------------------------------------


def descriptions_agree(root: Path) -> list[str]:
    cmake, s4ext, project = cmake_variables(root), s4ext_fields(root), pyproject(root)["project"]
    catalog, citation = (
        json.loads((root / "LNHG.json").read_text()),
        yaml.safe_load((root / "CITATION.cff").read_text()),
    )
    repository = cmake["EXTENSION_HOMEPAGE"]
    version = re.search(r'__version__ = "(.*)"', (root / "LNHGSegmentation/LNHGLib/__init__.py").read_text())
    expected = {
        "name": ("LNHG", re.search(r"^project\((.*)\)$", (root / "CMakeLists.txt").read_text(), re.MULTILINE)[1]),
        "version": (cmake["LNHG_VERSION"], project["version"], version and version[1], citation["version"]),
        "description": (
            *(cmake["EXTENSION_DESCRIPTION"], s4ext["description"]),
            *(project["description"], citation["abstract"]),
        ),
        "category": (cmake["EXTENSION_CATEGORY"], s4ext["category"], catalog["category"]),
        "depends": (cmake["EXTENSION_DEPENDS"], s4ext["depends"], " ".join(catalog["build_dependencies"])),
        "homepage": (repository, s4ext["homepage"], project["urls"]["Homepage"], citation["repository-code"]),
        "source": (f"{repository}.git", s4ext["scmurl"], catalog["scm_url"]),
        "revision": (s4ext["scmrevision"], catalog["scm_revision"]),
        "tier": (s4ext["tier"], str(catalog["tier"])),
        "contributors": (cmake["EXTENSION_CONTRIBUTORS"], s4ext["contributors"], citation["authors"][0]["name"]),
        "icon": (cmake["EXTENSION_ICONURL"], s4ext["iconurl"]),
        "screenshots": (cmake["EXTENSION_SCREENSHOTURLS"], s4ext["screenshoturls"]),
        "license": ("Apache-2.0", project["license"], citation["license"]),
    }
    faults = [f"{key} differs: {values}" for key, values in expected.items() if len(set(values)) > 1]
    return faults + ["the description does not say lung nodule"] * ("lung nodule" not in cmake["EXTENSION_DESCRIPTION"])


def pins(path: Path) -> dict[str, set[str]]:
    """Return the pinned versions of each package of a requirement file."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), re.MULTILINE):
        found.setdefault(name.lower().replace("_", "-"), set()).add(version)
    return found


def requirement_files_agree(root: Path) -> list[str]:
    project, folder = pyproject(root), root / "requirements"
    runtime, dev = pins(folder / "runtime.txt"), pins(folder / "dev.txt")
    needs, extras = project["project"]["dependencies"], project["project"]["optional-dependencies"].values()
    more = sum(extras, project["dependency-groups"]["dev"])
    faults = [
        f"runtime.txt pins {name}, dev.txt does not pin the same" for name in runtime if runtime[name] != dev.get(name)
    ]
    for pinned, texts in ((runtime, needs), (dev, more)):
        for need in map(Requirement, texts):
            versions = pinned.get(need.name.lower(), set())
            fits = versions and all(need.specifier.contains(version) for version in versions)
            faults += [] if fits else [f"{need} is pinned as {sorted(versions)}: run make requirements"]
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text()
        faults += [f"{path.name} names a host"] * (
            "://" in text or "--index" in text.replace("--no-emit-index-url", "")
        )
        unhashed = [line for line in text.splitlines() if re.match(r"[\w.-]+==", line) and not line.endswith("\\")]
        faults += [f"{path.name}: {line} has no hash" for line in unhashed]
    return faults


def slicer_installs_what_the_project_needs(root: Path) -> list[str]:
    """Lower bounds in Slicer are those of pyproject.toml; torch comes as the PyTorch extension brings it."""
    project = pyproject(root)["project"]
    extras = [need for extra in ("training", "fast") for need in project["optional-dependencies"][extra]]
    needs = map(Requirement, [*project["dependencies"], *extras])
    known = {
        need.name: str(need.specifier) for need in needs if need.name != "pylibjpeg-openjpeg"
    }  # Slicer reads DICOM
    core = root / "LNHGSegmentation/LNHGLib"
    calls = [
        node for node in ast.walk(ast.parse((core / "setup/package_list.py").read_text())) if isinstance(node, ast.Call)
    ]
    packages = [call.args for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Package"]
    listed = {name.value: f">={least.value}" for name, least, *_ in packages}
    faults = [
        f"package_list.py: {name}{listed.get(name, '')} is {name}{known.get(name, '')} in pyproject.toml"
        for name in known.keys() | listed.keys()
        if known.get(name) != listed.get(name)
    ]
    if "light_the_torch" not in (core / "setup/install.py").read_text():
        faults.append("setup/install.py does not take torch as the PyTorch extension does")
    return faults


def readme_introduces_every_module(root: Path) -> list[str]:
    text = (root / "README.md").read_text()
    return [f"README.md does not mention {name}" for name in (*MODULES, "Apache", "research") if name not in text]


RULES: list[Rule] = [
    cmake_lists_name_every_file,
    resources_stay_apart,
    module_folders_hold_one_script,
    pictures_of_the_catalog_exist,
    checkout_stays_small_and_safe,
    no_path_of_a_machine,
    pure_packages_know_nothing_above_them,
    slicer_loads_nothing_heavy_by_itself,
    slicer_takes_nothing_heavy_from_the_core,
    folders_of_the_core_import_one_way,
    the_command_line_is_on_top,
    folders_are_small,
    only_one_file_of_a_package_knows_where_it_lies,
    parameters_stand_alone,
    file_names_tell_the_layer,
    observers_remove_and_rebuild_nothing,
    files_and_functions_are_short,
    public_functions_of_the_core_say_what_they_take,
    descriptions_agree,
    requirement_files_agree,
    slicer_installs_what_the_project_needs,
    readme_introduces_every_module,
]
