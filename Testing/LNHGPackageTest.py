"""Runs inside Slicer (CTest): the built extension holds what its command line needs, all of it in reach."""

import importlib.util
import json
import unittest
from pathlib import Path

PACKAGES = ("LNHGSegmentationLib", "LNHGLib", "LNHGTrainingLib")


class LNHGPackageTest(unittest.TestCase):
    """A file that is missing from a CMake list is missing here, and only here."""

    def test_every_package_is_found(self) -> None:
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        self.assertEqual(missing, [])

    def test_bundled_models_are_complete(self) -> None:
        core = importlib.util.find_spec("LNHGLib")
        assert core is not None
        models = sorted((Path(str(core.origin)).parents[1] / "Resources" / "Models").glob("*/model.json"))
        self.assertNotEqual(models, [])
        for card in models:
            missing = [name for name in json.loads(card.read_text())["files"] if not (card.parent / name).is_file()]
            self.assertEqual(missing, [], card)
