"""The documents describe what users can do, and nothing that is not there; each check can fail."""

import argparse
import ast
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
DOCS = "\n".join(text for page, text in TEXTS.items() if page.parent.name == "docs")
PANEL = re.sub(r"^#+ ", "*", TEXTS[ROOT / "docs" / "slicer.md"], flags=re.MULTILINE)
"""The page on the panel: an asterisk stands before each control, and before the heading of each section."""
PACKAGES = {
    "LNHGLib": ROOT / "LNHGSegmentation" / "LNHGLib",
    "LNHGTrainingLib": ROOT / "LNHGTraining" / "LNHGTrainingLib",
    "LNHGSegmentationLib": ROOT / "LNHGSegmentation" / "LNHGSegmentationLib",
}
MAX_README_LINES = 150
TOUCHABLE = ("Button", "CheckBox", "ComboBox", "LineEdit", "SliderWidget", "SpinBox")
"""Ends of the classes of widgets that a user can touch."""
SUFFIXES = "csv|dcm|h5|html|json|log|md|mrb|nii\\.gz|nrrd|pdf|png|pt|safetensors|txt"
FILE_NAME = re.compile(rf"[\w*][\w*.-]*\.(?:{SUFFIXES})")
INTERNAL = {
    "ct.nrrd": "the CT that Slicer hands to the core in a temporary folder",
    "*-*.nrrd": "the synthetic chest in Slicer's cache",
    "constraints.txt": "what pip is told in a temporary folder",
    "LNHGPhantom.png": "a picture that is shipped",
}
"""File names in the code that no user meets, and why."""
MACHINE = re.compile(r"\.\./shared|/work\b|/tmp\b|/home/|/root/|/Users/|[A-Z]:\\")
CITATION = re.compile(r"\bregister ((?:[A-Z]\d{1,2}\b(?:, | and )?)+)")
SECTION = re.compile(r"\bmethod facts,? (?:section )?(\d+(?:\.\d+)?)(?: to (\d+(?:\.\d+)?))?")


# What is checked ------------------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text: str) -> set[str]:
    outside_code = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", outside_code, re.MULTILINE)}


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield the relative links of a page that lead nowhere."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or not file.is_relative_to(ROOT):
            yield f"{page.name} links to {target}, which is not there"
        elif anchor and anchor not in anchors(text if file == page else file.read_text(encoding="utf-8")):
            yield f"{page.name} links to {target}, which has no such heading"


def missing(words: Iterator[str], text: str) -> list[str]:
    """Return the words that a text does not name; a letter or digit beside a word makes it another one."""
    return [word for word in sorted(set(words)) if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]


def parser_of(main) -> argparse.ArgumentParser:
    """Return the parser that a command line builds."""

    class Caught(BaseException):
        pass

    def catch(self: argparse.ArgumentParser, *_args: object) -> None:
        raise Caught(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", catch)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", catch)
        with pytest.raises(Caught) as caught:
            main([])
    return caught.value.args[0]


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """Yield each command with its options and the words that its arguments may be."""
    words = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from commands(sub)
            continue
        words += action.option_strings[-1:]  # the long one
        if not action.option_strings:
            words += action.choices or ()
    yield parser.prog, words


def undocumented(parser: argparse.ArgumentParser, text: str) -> list[str]:
    """Return the commands, options and words of arguments that a text does not name."""
    found = dict(commands(parser))
    return missing((word for command, words in found.items() for word in (command, *words)), text)


def controls(path: Path) -> Iterator[str]:
    """Yield the visible texts of the controls of a panel's section: their own, or that of the label before them."""
    label = ""
    for widget in ElementTree.parse(path).getroot().iter("widget"):
        found = widget.find("property[@name='text']/string")
        text = (found.text or "" if found is not None else "").strip().rstrip(":")
        text = "" if widget.get("class") == "QLineEdit" else text  # it is a value
        if widget.get("class") == "QLabel":
            label = text or label
        elif widget.get("class").endswith(TOUCHABLE):
            label = text or label
            yield label
            yield from (item.findtext("property/string") for item in widget.findall("item"))


def panel_texts(name: str) -> Iterator[str]:
    """Yield the texts of choices, menus and table columns that the panel's Python builds."""
    for path in PACKAGES["LNHGSegmentationLib"].rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
                yield from (call.args[0].value for call in calls if getattr(call.func, "id", "") == "_")
            elif isinstance(node, ast.Assign) and name in (getattr(target, "id", "") for target in node.targets):
                value = ast.literal_eval(node.value)
                rows = value if name == "MENU" else (row for _widget, *rows in value.values() for row in rows)
                yield from (text for _key, text, _tip in rows)


def written_names(source: str) -> Iterator[str]:
    """Yield the file names in a program's text, with * for what is filled in."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            name = "".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            name = node.value
        else:
            continue
        name = name.rpartition("/")[2]
        if FILE_NAME.fullmatch(name):
            yield name


def unnamed_files(names: Iterator[str], text: str) -> list[str]:
    """Return the file names that a text does not name."""
    patterns = {name: re.escape(name).replace(r"\*", r"[\w.*-]+") for name in sorted(set(names) - set(INTERNAL))}
    return [name for name, pattern in patterns.items() if not re.search(rf"(?<![\w-]){pattern}(?!\w)", text)]


def cited(text: str) -> tuple[set[str], set[str]]:
    """Return the entries of the register and the sections of the method facts that a text cites."""
    flat = re.sub(r"\s+(?:#\s*)?", " ", text)
    entries = {entry for found in CITATION.findall(flat) for entry in re.findall(r"[A-Z]\d+", found)}
    return entries, {number for found in SECTION.findall(flat) for number in found if number}


def unresolved(text: str, method: str) -> list[str]:
    """Return the citations in a text that the page on the method does not resolve."""
    entries, sections = cited(text)
    lost = [entry for entry in sorted(entries) if not re.search(rf"^\| {entry} \|", method, re.MULTILINE)]
    return lost + [number for number in sorted(sections) if not re.search(rf"^#+ {number} ", method, re.MULTILINE)]


def citing_files() -> Iterator[Path]:
    for folder in ("LNHGSegmentation", "LNHGTraining", "Testing", "Resources"):
        files = (ROOT / folder).rglob("*")
        yield from (path for path in files if path.suffix in (".py", ".toml", ".json") and path != Path(__file__))


# The checks -----------------------------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_all_links_of_a_page_lead_somewhere(page):
    assert list(broken_links(page, TEXTS[page])) == []


def test_every_page_is_linked_from_the_readme():
    linked = TEXTS[ROOT / "README.md"]
    assert [page.name for page in PAGES if page.name != "README.md" and f"{page.name})" not in linked] == []


@pytest.mark.parametrize("name", ["lnhg", "lnhg-train", "slurm", "packages"])
def test_every_command_and_option_is_described(name):
    import LNHGLib.__main__
    import LNHGTrainingLib.__main__
    from LNHGLib import packages, slurm

    mains = {"lnhg": LNHGLib.__main__, "lnhg-train": LNHGTrainingLib.__main__, "slurm": slurm, "packages": packages}
    parser = parser_of(getattr(mains[name], "parse" if name == "slurm" else "main"))
    assert undocumented(parser, DOCS) == []


@pytest.mark.parametrize("path", sorted((ROOT / "LNHGSegmentation/Resources/UI").glob("*.ui")), ids=lambda p: p.stem)
def test_every_control_of_the_panel_is_described(path):
    assert missing((f"*{text}" for text in controls(path)), PANEL) == []


@pytest.mark.parametrize("name", ["MENU", "CHOICES", "columns"])
def test_every_choice_and_column_of_the_panel_is_described(name):
    texts = list(panel_texts(name))
    assert texts
    assert missing((f"*{text}" for text in texts), PANEL) == []


def test_every_file_that_the_program_writes_or_asks_for_is_described():
    sources = [path for folder in PACKAGES.values() for path in folder.rglob("*.py")]
    names = {name for path in sources for name in written_names(path.read_text(encoding="utf-8"))}
    assert {"nodules.csv", "report.json", "study.json", "epochs.csv", "*.mrb"} <= names
    assert unnamed_files(names, DOCS) == []


def test_what_the_code_cites_of_the_method_is_in_its_page():
    method = TEXTS[ROOT / "docs" / "method.md"]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in citing_files()}
    assert {"U3", "3"} <= set().union(*(set().union(*cited(text)) for text in texts.values()))
    lost = {name: unresolved(text, method) for name, text in texts.items()}
    assert {name: entries for name, entries in lost.items() if entries} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_architecture_page_names_the_folders_that_there_are(package):
    text = TEXTS[ROOT / "docs" / "architecture.md"]
    part = text.partition(f"| folder of `{package}` |")[2].partition("\n\n")[0]
    there = {path.parent.name for path in PACKAGES[package].glob("*/*.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == there


def test_the_paths_in_the_architecture_page_are_there():
    paths = re.findall(r"`((?:LNHG|Testing|Resources|docs)[\w/.]*)`", TEXTS[ROOT / "docs" / "architecture.md"])
    assert [path for path in paths if not (ROOT / path).exists() and path not in PACKAGES] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_path_of_a_machine(page):
    assert MACHINE.findall(TEXTS[page]) == []


# That each check can fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "fault"),
    [("docs/nothing.md", "which is not there"), ("docs/slicer.md#nothing", "no such heading"), ("#nothing", "heading")],
)
def test_a_broken_link_is_found(link, fault):
    (found,) = broken_links(ROOT / "README.md", f"# Title\n[text]({link})")
    assert fault in found


def test_a_link_that_leads_somewhere_is_no_fault():
    text = "# The Title, in `two` parts\n[a](#the-title-in-two-parts) [b](docs/slicer.md#segment) [c](https://a.org/#x)"
    assert list(broken_links(ROOT / "README.md", text)) == []


def test_an_undescribed_command_option_and_choice_are_found():
    parser = argparse.ArgumentParser(prog="lnhg")
    sub = parser.add_subparsers().add_parser("heal")
    sub.add_argument("kind", choices=["fast", "slow"])
    sub.add_argument("--dose")
    assert undocumented(parser, "`lnhg` has --help; slow") == ["--dose", "fast", "lnhg heal"]


def test_an_option_is_not_described_by_a_longer_one():
    assert missing(iter(["--at"]), "--attach") == ["--at"]


def test_an_undescribed_control_is_found(tmp_path):
    path = tmp_path / "Heal.ui"
    label, button = '<widget class="QLabel">{}</widget>', '<widget class="QPushButton">{}</widget>'
    text = '<property name="text"><string>{}</string></property>'
    slider = '<widget class="ctkSliderWidget"/>'
    parts = (label.format(text.format("Dose:")), slider, button.format(text.format("Heal")))
    path.write_text(f"<ui>{''.join(parts)}</ui>")
    assert list(controls(path)) == ["Dose", "Heal"]
    assert missing((f"*{text}" for text in controls(path)), "*Dose* does it") == ["*Heal"]


def test_an_undescribed_file_is_found():
    source = 'f("healed.csv", f"{name}-dose.json", "a sentence in notes.txt", f"scans/{case}.h5", ".log")'
    names = set(written_names(source))
    assert names == {"healed.csv", "*-dose.json", "*.h5"}
    assert unnamed_files(names, "`CASE-dose.json`, `scans/SCAN.h5`") == ["healed.csv"]


def test_an_unresolved_citation_is_found():
    method = "### 3 Fusion\n| L1 | a | b |\n"
    assert unresolved("(register L1, L99), method facts, section 3", method) == ["L99"]
    assert unresolved("# see method facts 4.2 to\n# 4.6", method) == ["4.2", "4.6"]


@pytest.mark.parametrize("path", ["../shared/data", *(f"/{folder}/x" for folder in ("work", "tmp", "home")), "C:\\x"])
def test_a_path_of_a_machine_is_found(path):
    assert MACHINE.search(f"see {path}")
