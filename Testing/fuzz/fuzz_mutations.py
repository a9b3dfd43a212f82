"""Seeded mutations of files: of their bytes, of lines and cells, of JSON values, and of DICOM data sets."""

import io
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pydicom

NUMBERS = (
    "0",
    "-1",
    "1",
    "1e308",
    "-1e308",
    "nan",
    "inf",
    "1e-300",
    "4294967296",
    "-2147483649",
    "65536",
    "0x10",
    "1,5",
)
WORDS = (
    "",
    " ",
    "\t",
    "a" * 300,
    "=1+1",
    "../..",
    "\u202e",
    "\u0000",
    "ct.nii.gz",
    "null",
    "true",
    "\ufeff",
    "é\udc80",
    "CON",
)
JSON_VALUES = (
    None,
    True,
    -1,
    0,
    1e308,
    2**70,
    "",
    "x" * 5000,
    [],
    {},
    [[]],
    {"": {}},
    "1",
    float("nan"),
    [1, "2", None],
)
SIZES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE, 0x10000)
DEPTH = 500

Mutation = Callable[[bytes, random.Random], bytes]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip one to sixteen bits, most of them near the start."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.randint(1, 16)):
        at = min(int(rng.expovariate(1 / rng.choice((64, 512, len(changed))))), len(changed) - 1)
        changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Leave only the start, or take a piece out."""
    start = rng.randrange(len(data) + 1)
    return data[:start] if rng.random() < 0.6 else data[:start] + data[start + rng.randint(1, 64) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Put noise, zeros or a piece of the file somewhere."""
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 3, 16, 257, 4096))
    piece = rng.choice((rng.randbytes(length), bytes(length), data[:length], b"\xff" * length))
    return data[:at] + piece + data[at:]


def set_size(data: bytes, rng: random.Random) -> bytes:
    """Put a length or count that is far off into the first kilobyte."""
    form = rng.choice(("<H", "<I", ">H", ">I", "<q"))
    size = struct.calcsize(form)
    if len(data) < size:
        return data + bytes(size)
    at = rng.randrange(min(len(data) - size + 1, 1024))
    value = rng.choice(SIZES) & (2 ** (8 * size - 1) - 1 if form == "<q" else 2 ** (8 * size) - 1)
    return data[:at] + struct.pack(form, value) + data[at + size :]


def swap(data: bytes, rng: random.Random) -> bytes:
    """Exchange two pieces of equal length."""
    length = rng.choice((2, 4, 8, 16, 128))
    if len(data) < 2 * length:
        return data[::-1]
    a, b = sorted((rng.randrange(len(data) - 2 * length + 1), rng.randrange(len(data) - length + 1)))
    b = max(b, a + length)
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b + length :]


def empty_or_noise(data: bytes, rng: random.Random) -> bytes:
    """Leave nothing, or noise of the same length."""
    return rng.choice((b"", rng.randbytes(len(data)), bytes(len(data))))


BYTES: tuple[Mutation, ...] = (flip_bits, flip_bits, cut, cut, insert, set_size, set_size, swap, empty_or_noise)


def change_text(data: bytes, rng: random.Random) -> bytes:
    """Change a field of a header or a table: another value, a line twice, away or elsewhere, another encoding."""
    end = data.find(b"\n\n")  # of a header of text, behind which there are voxels
    head, rest = (data, b"") if end < 0 else (data[:end], data[end:])
    lines = head.decode("latin-1").split("\n")
    at = rng.randrange(len(lines))
    what = rng.randrange(7)
    if what == 0:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    elif what == 1:
        del lines[at]
    elif what == 2:
        rng.shuffle(lines)
    elif what == 3 and not rest:
        return "\n".join(lines).encode(rng.choice(("utf-16", "utf-8-sig", "utf-32", "cp037")))
    elif what == 4 and not rest:
        return head.replace(b",", rng.choice((b";", b"\t", b",,", b'","'))).replace(b"\n", rng.choice((b"\r", b"\r\n")))
    else:
        sign = rng.choice(("=", ":", ",", " "))
        cells = lines[at].split(sign)
        cells[rng.randrange(len(cells))] = rng.choice(NUMBERS + WORDS)
        lines[at] = sign.join(cells)
    return "\n".join(lines).encode("utf-8", "surrogateescape") + rest


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Change, take out or nest one value of a JSON file, or break the file."""
    if rng.random() < 0.2:
        return rng.choice(BYTES)(data, rng)
    content = json.loads(data)
    places: list[tuple] = []
    stack = [content]
    while stack:
        part = stack.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part))
        places += [(part, key) for key in keys]
        stack += [part[key] for key in keys if isinstance(part[key], dict | list)]
    part, key = rng.choice(places)
    what = rng.randrange(5)
    if what == 0 and isinstance(part, dict):
        del part[key]
    elif what == 1 and isinstance(part, dict):
        part[rng.choice(WORDS)] = part[key]
    elif what == 2:
        other, name = rng.choice(places)
        part[key] = json.loads(json.dumps(other[name])) if name in other or isinstance(other, list) else None
    else:
        part[key] = rng.choice(JSON_VALUES)
    text = json.dumps(content)
    if rng.random() < 0.05:
        text = "[" * rng.choice((DEPTH, 100_000)) + text
    return text.encode()


def nested(depth: int) -> bytes:
    """Return a private DICOM sequence in a sequence and so on, each with one item, of unknown lengths.

    Args:
        depth: of the innermost.
    """
    tag, unknown = struct.pack("<HH", 0x7FDF, 0x1010), b"\xff" * 4
    item, end_of_item, end = (struct.pack("<HH", 0xFFFE, number) for number in (0xE000, 0xE00D, 0xE0DD))
    begin = tag + b"SQ\0\0" + unknown + item + unknown
    return depth * begin + depth * (end_of_item + bytes(4) + end + bytes(4))


def change_dicom(data: bytes, rng: random.Random) -> bytes:
    """Change, empty, take out, exchange or nest elements of a DICOM file, or break the file."""
    if rng.random() < 0.3:
        return rng.choice(BYTES)(data, rng)
    what = rng.randrange(7)
    pixels = data.rfind(b"\xe0\x7f\x10\x00O")
    if what == 5 and pixels > 0:
        return data[:pixels] + nested(rng.choice((3, DEPTH))) + data[pixels:]
    dataset = pydicom.dcmread(io.BytesIO(data))
    elements = [element for element in dataset if element.keyword != "PixelData"]
    element = rng.choice(elements)
    try:
        if what == 0:
            del dataset[element.tag]
        elif what == 1:
            element.value = None
        elif what == 2:
            element._value = rng.choice(elements).value
        elif what == 3:
            element._value = rng.choice((*NUMBERS, *WORDS))
        elif what == 4:
            dataset.PixelData = rng.choice((b"", dataset.PixelData[:-2], dataset.PixelData * 2, dataset.PixelData[:7]))
        else:
            name = rng.choice(
                ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PixelRepresentation")
            )
            setattr(dataset, name, rng.choice((0, 1, 3, 7, 8, 12, 32, 64, 0xFFFF)))
        out = io.BytesIO()
        dataset.save_as(out)
        return out.getvalue()
    except Exception:  # what pydicom does not write is broken in another way
        return rng.choice(BYTES)(data, rng)


def mutate(folder: Path, names: tuple[str, ...], structured: Mutation | None, rng: random.Random) -> None:
    """Change one to three files of a folder.

    Args:
        folder: a copy of a good input.
        names: patterns of the files that may be changed.
        structured: changes their content by what it means; None: only bytes are changed.
        rng: seeded.
    """
    files = sorted({path for name in names for path in folder.glob(name) if path.is_file()})
    changed: set[Path] = set()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        file = rng.choice(files)
        whole = file not in changed  # what reads the content is only given what is whole
        change = structured if structured and whole and rng.random() < 0.7 else rng.choice(BYTES)
        if change is change_json and file.suffix != ".json":
            change = rng.choice(BYTES)
        file.write_bytes(change(file.read_bytes(), rng))
        changed.add(file)
