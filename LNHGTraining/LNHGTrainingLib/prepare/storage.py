"""What prepared data look like on disk: one HDF5 file for each scan, an index over all of them, and a table.

A scan's file holds `/volumes/<key>/{image, target, mask, reader_masks, other_mask}` of shape (1, z, y, x) for each
cube at 1 mm (method facts, section 7). The index `volumes.h5` links to them under the same names, and shows all cubes
as one array each, in the layout of the development crops: `ct`, `reader_masks`, `other_mask` (N, z, y, x) and
`valid_extent`. The table is `manifest.csv`, one row for each finding.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import write_csv
from LNHGLib.segmentation.preprocessing import normalize

from LNHGTrainingLib.data.crops import CUBE, consensus

WINDOW_HU = (-1000.0, 400.0)
"""Scales the target; the image stays in HU, so that a recipe may choose another window."""
TABLE, INDEX, SCANS = "manifest.csv", "volumes.h5", "scans"
ATTRIBUTES = tuple(
    f"att_{name}"
    for name in (
        "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation",
        "texture", "malignancy",
    )
)  # fmt: skip
COLUMNS = (
    "row", "key", "patient_id", "series_uid", "nodule_index", "kind", "reader", "readers", "n_readers_usable", "usable",
    "diameter_mm", "diameter_from", "luna_diameter_exact_mm", "volume_mm3", "type", "reference", *ATTRIBUTES,
    "z_spacing", "y_spacing", "x_spacing", "z_first", "z_last", "dir_x", "dir_y", "centre_x", "centre_y", "centre_z",
    "origin_x", "origin_y", "origin_z", "cons_voxels", "other_voxels", "human_loo_dice", "source", "licence", "fold",
    "scan_test",
)  # fmt: skip
"""Columns of the table. `kind` is nodule, negative, small-nodule, non-nodule or irrelevant; the last three have no
cube and no `row`. `type` is the attenuation type, `reference` what the mask is, `luna_diameter_exact_mm` the diameter
under the name that the development crops give it, `fold` -1 until there are folds."""
SHARED = ("reader_masks", "other_mask")
BLOCK = (1, CUBE, CUBE, CUBE)


@dataclass(frozen=True, eq=False)
class Sample:
    """A cube at 1 mm with its row of the table.

    Attributes:
        key: its name in the file.
        hu: int16 (z, y, x).
        bits: uint8 (z, y, x), bit r set inside the outline of reader r.
        readers: number of readers whose half makes the consensus; 0 for a cube without a nodule.
        other: uint8 (z, y, x), 1 where other lesions lie or nothing is known.
        valid: int16 (6,), z0, z1, y0, y1, x0, x1 of the part that is not padding.
        row: columns of the table.
    """

    key: str
    hu: np.ndarray
    bits: np.ndarray
    readers: int
    other: np.ndarray
    valid: np.ndarray
    row: dict

    @property
    def mask(self) -> np.ndarray:
        """The 50 % consensus, bool (z, y, x)."""
        return consensus(self.bits, self.readers) & (self.bits > 0)


def write_scan(path: Path, cubes: Iterable[Sample], rows: Iterable[dict], notes: Sequence[str]) -> int:
    """Write one scan's cubes, the rows of its marks and what to tell about it; whole or not at all.

    The same content gives the same bytes.

    Args:
        path: file to write.
        cubes: of the scan.
        rows: of the table, for marks without a cube.
        notes: sentences for the report.

    Returns:
        The number of cubes.
    """
    table = []
    with atomic_file(path) as part, h5py.File(part, "w") as file:
        volumes = file.create_group("volumes")
        for cube in cubes:
            group, mask, row = volumes.create_group(cube.key), cube.mask, cube.row
            arrays = {
                "image": cube.hu.astype(np.float32),
                "target": (normalize(cube.hu, WINDOW_HU) * mask).astype(np.float32),
                "mask": mask.astype(np.uint8),
                "reader_masks": cube.bits,
                "other_mask": cube.other,
            }
            for name, array in arrays.items():
                group.create_dataset(name, data=array[None], chunks=BLOCK, compression="gzip", shuffle=True)
            group["valid_extent"] = cube.valid
            texts = {"series_uid": row["series_uid"], "patient_id": row["patient_id"]}
            texts |= {"nodule_id": row["nodule_index"], "subtype": row.get("type", "")}
            texts |= {"source": row.get("source", ""), "image_units": "HU"}
            for name, text in texts.items():
                group.attrs[name] = np.bytes_(str(text).encode() or b" ")  # of fixed length: repeatable to the byte
            group.attrs["z_indices"] = [int(row.get(name, -1)) for name in ("z_first", "z_last")]
            group.attrs["scan_spacing_mm"] = [float(row.get(f"{axis}_spacing") or np.nan) for axis in "zyx"]
            group.attrs["spacing_mm"] = [1.0, 1.0, 1.0]
            group.attrs["window_hu"] = WINDOW_HU
            table.append(row | {"key": cube.key})
        content = json.dumps({"rows": [*table, *rows], "notes": list(notes)}).encode()
        file["content"] = np.frombuffer(content, np.uint8)
    return len(table)


def read_content(path: Path) -> dict:
    """Return the `rows` and `notes` of one scan's file."""
    with explain_damage(path, "remove it and prepare again"), h5py.File(path, "r") as file:
        return json.loads(file["content"][()].tobytes())


def write_index(folder: Path, scans: Sequence[str]) -> list[dict]:
    """Write `volumes.h5` and `manifest.csv` over the files of these scans, in this order.

    Args:
        folder: of the prepared data.
        scans: names of the files in its folder `scans`.

    Returns:
        The table's rows.
    """
    rows, cubes = [], []
    for scan in scans:
        for row in read_content(folder / SCANS / f"{scan}.h5")["rows"]:
            if "key" in row:
                row["row"] = len(cubes)
                cubes.append((f"{SCANS}/{scan}.h5", row["key"]))
            rows.append(row)
    with atomic_file(folder / INDEX) as part, h5py.File(part, "w") as file:
        names = {"ct": ("image", np.int16), **{name: (name, np.uint8) for name in SHARED}}
        for view, (name, dtype) in names.items():
            layout = h5py.VirtualLayout((len(cubes), *BLOCK[1:]), dtype)
            for index, (scan, key) in enumerate(cubes):
                layout[index] = h5py.VirtualSource(scan, f"volumes/{key}/{name}", BLOCK)[0]
            file.create_virtual_dataset(view, layout)
        extents = np.zeros((len(cubes), 6), np.int16)
        for index, (scan, key) in enumerate(cubes):
            file[f"volumes/{key}"] = h5py.ExternalLink(scan, f"volumes/{key}")
            with h5py.File(folder / scan, "r") as source:
                extents[index] = source[f"volumes/{key}/valid_extent"]
        file["valid_extent"] = extents
    with atomic_file(folder / TABLE) as part:
        write_csv(part, ({"fold": -1, "scan_test": 0} | row for row in rows), COLUMNS)
    return rows
