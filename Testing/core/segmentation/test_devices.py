"""The list of devices, with a GPU that torch is made to report."""

import json
import re
import sys

import pytest
from LNHGLib.__main__ import main
from LNHGLib.segmentation import devices


@pytest.fixture
def two_gpus(monkeypatch):
    import torch

    memory = [(10 * 2**30, 24 * 2**30), (70 * 2**30, 80 * 2**30)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ("Small GPU", "Large GPU")[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: memory[index])


def test_processor_is_always_there_with_its_cores(monkeypatch):
    monkeypatch.setattr(devices, "_gpus", list)
    (processor,) = devices.find()
    assert processor.id == "cpu"
    assert processor.name
    assert processor.cores >= 1


def test_gpus_come_first_with_their_memory(two_gpus):
    assert [(d.id, d.memory_gib, d.free_gib) for d in devices.find()[:2]] == [("cuda:0", 24, 10), ("cuda:1", 80, 70)]


def test_command_prints_a_line_a_device(two_gpus, capsys):
    assert main(["devices"]) == 0
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first == "cuda:0  Small GPU, 24 GiB, 10 GiB free"
    assert second.startswith("cuda:1")
    assert third.startswith("cpu")
    assert re.fullmatch(r"networks run by openvino [\d.]+ or torch [\d.]+", fourth)


def test_json_is_one_line_that_programs_read(two_gpus, capsys):
    assert main(["devices", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert [device["id"] for device in told["devices"]] == ["cuda:0", "cuda:1", "cpu"]
    assert told["runtimes"] == ["openvino", "torch"]
    assert told["models"]["lnhg-1mm"] == ["openvino", "torch"]


@pytest.mark.parametrize(
    ("absent", "runtimes", "words"),
    [
        (["torch"], ["openvino"], "networks run by openvino "),
        (["openvino"], ["torch"], "networks run by torch "),
        (["torch", "openvino"], [], "networks run by nothing yet: install OpenVINO"),
    ],
)
def test_what_is_not_installed_is_not_listed(absent, runtimes, words, monkeypatch, capsys):
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert main(["devices", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runtimes"] == told["models"]["lnhg-1mm"] == runtimes
    assert main(["devices"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(words)


def test_processor_without_a_name_in_the_system_still_has_one(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "CPU_NAMES", tmp_path / "missing")
    assert devices._processor()
