"""Small good inputs of every kind, and the command that reads each."""

import csv
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import fuzz_mutations as mutations
import report_data
import study_cases
import tiny_model
from LNHGLib.files.checksum import file_sha256
from LNHGLib.image.volume import write_image
from LNHGLib.reader_study.cases import write_scene_case
from LNHGLib.reader_study.scores import COLUMNS

BALLS = (((-10.0, -46.0, 70.0), 14.0), ((0.0, 46.0, 95.0), 16.0))
SPACING_MM = (8.0, 6.0, 6.0)


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        make: writes a good one into a folder.
        names: the files that are changed.
        arguments: of the command, `{in}` and `{out}` standing for the folders; the first is `lnhg` or `lnhg-train`.
        structured: changes a file by what it means.
        after: called with the changed folder and the random numbers.
        resumed: the command may leave OUT when it fails, to go on in it.
    """

    make: Callable[[Path], None]
    names: tuple[str, ...]
    arguments: tuple[str, ...]
    structured: mutations.Mutation | None = None
    after: Callable[[Path, random.Random], None] | None = None
    resumed: bool = False


def _chest(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        volume = tiny_model.tiny_chest(BALLS, SPACING_MM)
        write_image(volume.array, volume.grid, folder / name)
        tiny_model.write_model(folder / "model")

    return make


def _dicom(folder: Path) -> None:
    volume = tiny_model.tiny_chest(BALLS, SPACING_MM)
    scan = report_data.Scan(volume.grid, volume.array, volume.array * 0)
    report_data.write_dicom(scan, folder / "ct")
    tiny_model.write_model(folder / "model")


def _model(folder: Path) -> None:
    tiny_model.write_model(folder / "model", second=True, classifier=True)
    volume = tiny_model.tiny_chest(BALLS, SPACING_MM)
    write_image(volume.array, volume.grid, folder / "ct.nii.gz")


def _right_sums(folder: Path, rng: random.Random) -> None:
    """Give the card the right sums of the weights in half of the cases, so that their content is read."""
    card = folder / "model" / "model.json"
    if rng.random() < 0.7:
        content = json.loads(card.read_text())
        content["files"] = {name: file_sha256(card.parent / name) for name in content["files"]}
        card.write_text(json.dumps(content))


def _result(folder: Path) -> None:
    scan = report_data.make_scan()
    report_data.write_dicom(scan, folder / "dicom")
    report_data.write_result(scan, folder / "result", Path("..") / "dicom")


def _report_where(folder: Path, _rng: random.Random) -> None:
    """Say where the CT of a result is, in the copy that is changed."""
    report = folder / "result" / "report.json"
    data = report.read_bytes()
    report.write_bytes(data.replace(b"../dicom", str(folder / "dicom").encode()))


def _results_to_study(folder: Path) -> None:
    nodule = study_cases.a_nodule()
    write_image(nodule.volume.array, nodule.volume.grid, folder / "ct.nii.gz")
    for name in "ab":
        study_cases.write_result(folder / "results" / name, Path("ct.nii.gz"), nodule)


def _scenes(folder: Path) -> None:
    (folder / "scene").mkdir()
    for number in range(2):
        nodule = study_cases.a_nodule(5.0 + number, seed=number)
        write_scene_case(folder / "scene" / f"case-{number:04d}.npz", "CT", number + 1, nodule, [])


def _pairs(folder: Path) -> None:
    volume = tiny_model.tiny_chest(BALLS, SPACING_MM)
    write_image(volume.array, volume.grid, folder / "ct.nii.gz")
    write_image((volume.array > 0).astype("u1"), volume.grid, folder / "mask.nii.gz")
    (folder / "list.csv").write_text(
        "case,patient_id,ct,mask\na,P1,ct.nii.gz,mask.nii.gz\nb,P2,ct.nii.gz,mask.nii.gz\n"
    )


def _batch(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / f"{name}.nii.gz").write_bytes(b"\x1f\x8b nothing that is read here")
    (folder / "list.csv").write_text("path,case,series_uid\none.nii.gz,first,\ntwo.nii.gz,second,\n")
    tiny_model.write_model(folder / "model")


def _scores(folder: Path) -> None:
    rng = random.Random(0)
    with (folder / "scores.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for reader in ("R1", "R2"):
            for session, modality in ((1, "CT"), (2, "CT+map")):
                for case in range(8):
                    score = 5 * rng.randint(0, 20)
                    writer.writerow([reader, f"C{case}", modality, score, 3, 9.5, session, case + 1, 0])
    (folder / "truth.csv").write_text("caseID,truth\n" + "".join(f"C{case},{case % 2}\n" for case in range(8)))


_SEGMENT = ("lnhg", "segment", "{in}/ct", "{out}", "--model", "{in}/model", "--device", "cpu")


def _segment(name: str) -> tuple[str, ...]:
    return tuple(part.replace("{in}/ct", "{in}/" + name) for part in _SEGMENT)


def _volume(name: str, structured: mutations.Mutation | None = None) -> Kind:
    return Kind(_chest(name), (name,), _segment(name), structured)


_ADD = ("lnhg", "models", "add", "{in}/model")
_REPORT = ("lnhg", "report", "{in}/result", "{out}", "--only")
_ANALYZE = ("lnhg", "reader-study", "analyse", "{in}/scores.csv", "{out}", "--truth", "{in}/truth.csv")
_STUDY = ("--seed", "1", "--readers", "1")
_CARD = Kind(_model, ("model/model.json",), _segment("ct.nii.gz"), mutations.change_json)

KINDS: dict[str, Kind] = {
    "DICOM": Kind(_dicom, ("ct/*.dcm",), _SEGMENT, mutations.change_dicom),
    "NIfTI": _volume("ct.nii"),
    "NIfTI, packed": _volume("ct.nii.gz"),
    "NRRD": _volume("ct.nrrd", mutations.change_text),
    "MHA": _volume("ct.mha", mutations.change_text),
    "model card": _CARD,
    "weights": replace(_CARD, names=("model/*.safetensors",), structured=None, after=_right_sums),
    "model to add": replace(_CARD, names=("model/*",), structured=None, arguments=_ADD),
    "result": Kind(
        _result, ("result/report.json", "result/*.nii.gz"), (*_REPORT, "csv,page"),
        mutations.change_json, _report_where,
    ),
    "result's DICOM": Kind(
        _result, ("dicom/*.dcm",), (*_REPORT, "csv,dicom"),
        mutations.change_dicom, _report_where,
    ),
    "results for a study": Kind(
        _results_to_study, ("results/*/*",),
        ("lnhg", "reader-study", "export", "{in}/results", "{out}", "--ct", "{in}", *_STUDY),
        mutations.change_text,
    ),
    "scene": Kind(
        _scenes, ("scene/*",),
        ("lnhg", "reader-study", "export", "{in}/scene", "{out}", *_STUDY),
    ),
    "list of a batch": Kind(
        _batch, ("list.csv",), ("lnhg", "batch", "{in}/list.csv", "{out}", "--model", "{in}/model"),
        mutations.change_text, resumed=True,
    ),
    "list of pairs": Kind(
        _pairs, ("list.csv",), ("lnhg-train", "prepare", "pairs", "{in}/list.csv", "{out}"),
        mutations.change_text, resumed=True,
    ),
    "score sheet": Kind(
        _scores, ("*.csv",), _ANALYZE,
        mutations.change_text,
    ),
}  # fmt: skip


def changed_input(name: str, seed: int, base: Path, folder: Path) -> list[str]:
    """Write a changed input and return its command.

    Args:
        name: of the kind.
        seed: of the change.
        base: the good input.
        folder: to write to; the input goes to `in`, the command writes to `out`.
    """
    kind, rng = KINDS[name], random.Random(f"{name} {seed}")
    shutil.copytree(base, folder / "in")
    if seed:  # 0 is the good one
        mutations.mutate(folder / "in", kind.names, kind.structured, rng)
    if kind.after:
        with suppress(ValueError, KeyError, TypeError, AttributeError, OSError):  # what is changed may not be mended
            kind.after(folder / "in", rng)
    places = {"{in}": str(folder / "in"), "{out}": str(folder / "out")}
    arguments = list(kind.arguments)
    for mark, place in places.items():
        arguments = [part.replace(mark, place) for part in arguments]
    return arguments
