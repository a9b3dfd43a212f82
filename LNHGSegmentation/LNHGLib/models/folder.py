"""Model folders: `model.json` (the card) and safetensors weights, checked by SHA-256 before they are loaded.

A folder describes itself: inference needs nothing else. Bundled models lie in `Resources/Models/<name>/` beside this
package, added ones in the user's folder. Only the networks' own functions of `Model` import torch.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LNHGLib.errors import InputError, quoted, shown
from LNHGLib.files import atomic
from LNHGLib.files.text import read_json
from LNHGLib.models import archive
from LNHGLib.models.card import SECOND, Card, check
from LNHGLib.paths import BUNDLED_MODELS as BUNDLED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from LNHGLib.models.openvino_network import OpenVinoDetector, OpenVinoNetwork

CARD = archive.CARD
README = "README.md"
DEFAULT = "lnhg-1mm"
OPENVINO, OPENVINO_BF16 = "openvino", "openvino bf16"
BY_OPENVINO = (OPENVINO, OPENVINO_BF16)
"""Stand for devices where networks run on the CPU by OpenVINO instead of torch, in float32 or in bfloat16."""
TORCH = "torch"
RUNTIMES = ("auto", TORCH, OPENVINO)


@dataclass(frozen=True)
class Model:
    """A validated model folder. Its networks are read, checked and built once, however often they are asked for.

    Attributes:
        folder: where its files are.
        card: the content of `model.json`.
    """

    folder: Path
    card: dict[str, Any]
    _networks: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The model's name, as `--model` takes it."""
        return self.card["name"]

    @cached_property
    def spec(self) -> Card:
        """The card as typed values."""
        return Card.of(self.card)

    def generator(self, device: Any = "cpu") -> "nn.Module":
        """Return the generator with its weights, for inference, on a device; refuses a changed file."""
        return self.network("generator", device)

    def second_generator(self, device: Any = "cpu") -> "nn.Module | None":
        """As `generator`, of the card's `second_generator` part; None where it has none."""
        return self.network(SECOND, device) if SECOND in self.card else None

    def detector(self, device: Any = "cpu") -> "nn.Module":
        """Return the detector with its weights, for inference, on a device; refuses a changed file."""
        return self.network("detector", device)

    def classifier(self, device: Any = "cpu") -> "nn.Module":
        """Return the classifier with its weights, for inference, on a device; refuses a changed file."""
        return self.network("classifier", device)

    def network(self, part: str, device: Any = "cpu") -> "nn.Module | OpenVinoNetwork | OpenVinoDetector":
        """Return the network of a part of the card, built at the first call and moved to the device at each.

        Args:
            part: "generator", "second_generator", "detector" or "classifier".
            device: a torch device or its name, or one of `BY_OPENVINO`.

        Raises:
            InputError: the model has none, or its file was changed or does not fit the card.
        """
        if part not in self.card:
            raise InputError(f"The model {self.name} has no {part}, expected one here; choose a model that has one.")
        if device not in BY_OPENVINO:
            if part not in self._networks:
                self._networks[part] = self._build(part)
            return self._networks[part].to(device)
        key = f"{part}, {device}"
        if key not in self._networks:
            from LNHGLib.models import openvino_network

            content = _checked_content(self, self.card[part]["weights"])
            with self._explain_misfit(part):
                self._networks[key] = openvino_network.load(part, self.card[part], content, device == OPENVINO_BF16)
        return self._networks[key]

    def weights(self, part: str) -> "dict[str, Tensor]":
        """Return the tensors of a part's network by name; refuses a changed file.

        Files hold float16 or float32; networks compute in float32. Whole numbers stay what they are.
        """
        from safetensors.torch import load as load_tensors

        stored = load_tensors(_checked_content(self, self.card[part]["weights"]))
        return {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}

    def runs_on_openvino(self) -> bool:
        """Whether OpenVINO is installed, loads and knows all networks of the card."""
        if importlib.util.find_spec(OPENVINO) is None:
            return False
        try:
            from LNHGLib.models import openvino_network
        except ImportError:  # a build for another system or processor
            return False
        parts = (part for part in ("generator", SECOND, "detector", "classifier") if part in self.card)
        return all(openvino_network.supports(part, self.card[part]) for part in parts)

    def _build(self, part: str) -> "nn.Module":
        import torch

        from LNHGLib.models import classifier, detector, registry

        builders = {"detector": detector.build_detector, "classifier": classifier.build_classifier}
        with self._explain_misfit(part):
            network = builders.get(part, registry.build_generator)(self.card[part])
            network.load_state_dict(self.weights(part))
        network.eval().requires_grad_(False)
        if part == "detector":
            return network
        if part != "classifier":
            network.fold_norms()
        return network.to(memory_format=torch.channels_last_3d)  # a quarter faster on CPUs, the U-net's body a third

    @contextmanager
    def _explain_misfit(self, part: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            reason = textwrap.shorten(str(error), 80, placeholder=" ...")
            raise InputError(
                f"{self.folder / self.card[part]['weights']} does not fit the {part} that {CARD} describes ({reason}); "
                "take the whole folder again from its source."
            ) from error


def user_folder() -> Path:
    """Where added models are kept: $LNHG_MODELS, or the platform's folder for the user's application data."""
    if os.environ.get("LNHG_MODELS"):
        return Path(os.environ["LNHG_MODELS"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "LNHG" / "Models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "LNHG" / "Models"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "lnhg" / "models"


def available() -> list[Model]:
    """All models whose card can be read, the default first; needs no torch and reads no weights."""
    found: dict[str, Model] = {}
    for root in (BUNDLED, user_folder()):
        for card in sorted(root.glob(f"*/{CARD}")):
            try:
                model = read(card.parent)
            except InputError:
                continue
            found.setdefault(model.name, model)
    return sorted(found.values(), key=lambda model: model.name != DEFAULT)


def load(name_or_folder: str | Path | None = None) -> Model:
    """Find a model by name or folder, check its card and the SHA-256 of every file.

    Args:
        name_or_folder: a name of `available`, a model folder, or None for the default model.

    Raises:
        InputError: no such model, a malformed card, or a changed, missing or unlisted file.
    """
    models = available()
    if name_or_folder is None:
        if not models:
            raise InputError(
                f"No model found in {BUNDLED} or {user_folder()}; add one with: lnhg models add FOLDER|ZIP."
            )
        return verify(models[0].folder)
    named = [model for model in models if model.name == str(name_or_folder)]
    if named:
        return verify(named[0].folder)
    folder = Path(name_or_folder)
    if not folder.is_dir():
        known = ", ".join(model.name for model in models) or "none"
        raise InputError(
            f"Model '{name_or_folder}' is neither a known model ({known}) nor a folder; see: lnhg models list."
        )
    return verify(folder)


def read(folder: str | Path) -> Model:
    """Read and validate the card of a model folder, without looking at the weights.

    Raises:
        InputError: the card is missing or malformed; the sentence names the key.
    """
    folder = Path(folder)
    path = folder / CARD
    try:
        card = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{folder} holds no {CARD}, expected a model folder; give the folder of a model.") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}), expected JSON; take the model again from its source."
        ) from error
    check(card, path)
    return Model(folder, card)


def verify(folder: str | Path) -> Model:
    """Validate a model folder: its card, the SHA-256 of every listed file, and that no other file lies there.

    Raises:
        InputError: naming the key or file that is wrong.
    """
    model = read(folder)
    for name in model.card["files"]:
        _checked_content(model, name)
    allowed = {CARD, README, *model.card["files"]}
    extra = sorted(p.name for p in model.folder.iterdir() if p.name not in allowed and not p.name.startswith("."))
    if extra:
        raise InputError(
            f"{model.folder} holds {shown(extra[0])}, which {CARD} does not list under 'files'; "
            "remove it, or take the model again from its source."
        )
    return model


def add(source: str | Path) -> Model:
    """Copy a validated model, a folder or a zip archive of one, into the user's folder, in one step.

    Raises:
        InputError: the model is not valid, or one of that name is already there; nothing is kept then.
        DiskError: there is no room for it.
    """
    source = Path(source)
    if not source.is_file():
        return _keep(source)
    with atomic.temporary_folder() as folder:
        with atomic.explain_disk_errors(folder, "The model"):
            archive.unpack(source, folder)
        return _keep(folder)


def _keep(folder: Path) -> Model:
    model = verify(folder)
    taken = next((other for other in available() if other.name == model.name), None)
    target = user_folder() / model.name
    if taken or target.exists():
        raise InputError(
            f"A model named {quoted(model.name)} is already there ({taken.folder if taken else target}); "
            "remove that folder, or give the new model another name."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.explain_disk_errors(target.parent, "The model"),
        atomic.temporary_folder(target.parent, ".adding-") as temporary,
    ):
        copy = temporary / model.name
        copy.mkdir()
        for name in (CARD, README, *model.card["files"]):
            if (model.folder / name).exists():
                shutil.copyfile(model.folder / name, copy / name)
        verify(copy)
        copy.rename(target)
    return Model(target, model.card)


def _checked_content(model: Model, name: str) -> bytes:
    """Return the bytes of a listed file; the bytes that were checked are the bytes that get loaded."""
    path = model.folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} is missing, but {CARD} lists it under 'files'; take the model again from its source."
        ) from error
    expected, met = model.card["files"][name], hashlib.sha256(content).hexdigest()
    if met != expected:
        raise InputError(
            f"{path} was changed: its SHA-256 is {met}, expected {expected}; take the model again from its source."
        )
    return content
