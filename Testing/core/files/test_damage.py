"""What libraries raise for a damaged file becomes one sentence; faults of the computer do not."""

import errno
import json
import zipfile

import numpy as np
import pytest
from LNHGLib.errors import InputError
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import read_json
from LNHGLib.models import folder


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"a": 1}', b"[]", b"7"])
def test_damaged_json_is_one_sentence(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    sentence = r"report\.json is damaged or was changed \(.*\), .*; segment again\.$"
    with pytest.raises(InputError, match=sentence) as met, explain_damage(path, "segment again"):
        json.loads(path.read_text(encoding="utf-8"))["b"]["c"]
    assert len(str(met.value).replace(str(path), "")) < 200


@pytest.mark.parametrize("cut", [0, 40, 300, -30, -4])
def test_damaged_arrays_are_one_sentence(tmp_path, cut):
    path = tmp_path / "case.npz"
    np.savez(path, a=np.arange(99), b=np.array("text"))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="damaged"), explain_damage(path, "export again"), np.load(path) as case:
        print(case["a"].sum(), case["b"])


@pytest.mark.parametrize("end", [b"(", b'"""', b"\n  x\n y", b"]", b"\0", b"{" * 300])
def test_damaged_headers_of_arrays_are_one_sentence(tmp_path, end):
    path = tmp_path / "case.npy"
    np.save(path, np.arange(99))
    content = path.read_bytes()
    start, length = content.index(b"{"), content.index(b"\n") - content.index(b"{")
    path.write_bytes(content[:start] + end.ljust(length)[:length] + content[start + length :])
    with pytest.raises(InputError, match="damaged"), explain_damage(path, "export again"):
        np.load(path)


def test_a_place_beyond_the_file_is_damage_and_a_full_disk_is_not(tmp_path):
    with pytest.raises(InputError, match="damaged"), explain_damage(tmp_path, "copy again"):
        raise OSError(errno.EINVAL, "Invalid argument")
    for error in (OSError(errno.ENOSPC, "full"), MemoryError(), InputError("said; do it."), KeyboardInterrupt()):
        with pytest.raises(type(error)), explain_damage(tmp_path, "copy again"):
            raise error
    with pytest.raises(InputError, match="damaged"), explain_damage(tmp_path, "copy again"):
        raise zipfile.BadZipFile("no. Not; one")


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_json_that_is_none_or_nested_too_deep_is_a_wrong_value(tmp_path, content):
    path = tmp_path / "any.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\w"):
        read_json(path)


def test_a_card_that_is_nested_too_deep_is_refused(tmp_path):
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deep"):
        folder.read(tmp_path)
