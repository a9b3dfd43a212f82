"""Configurations of the trainings: TOML files that may build on another, and typed values made of them.

A file names others under `base`, whose values hold where it has none of its own; `--set loss.mse=0` on the command line
comes last. `build` makes the typed configuration and refuses a key that is unknown, missing or of another kind in one
sentence that names it. A key without a default must be given; None stands for one that was not.
"""

import tomllib
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import reduce
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from LNHGLib.errors import InputError, nearest, quoted, shown

T = TypeVar("T")

OLD_KEYS = {"parts": "micro_batches", "optimizer.average": "optimizer.ema_decay", "sampling.hollow": "sampling.cavity"}
"""Keys of older configurations, and what they are called today."""


@dataclass(frozen=True, kw_only=True)
class BackgroundFile:
    """A chest CT without nodules; in the boxes z0, z1, y0, y1, x0, x1 of its voxels nothing is known."""

    file: str
    unknown: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The table `data`: what is trained on.

    Attributes:
        folder: where the files are; the command line names it.
        crops: HDF5 file of crops.
        table: their table, with folds.
        split: "nodule" lets a patient be on both sides, to show by how much that flatters.
        min_readers: fewest readers of a nodule to train on.
        hard_negatives: a file that `lnhg-train mine` wrote; none when empty.
        injector: a checkpoint that `lnhg-train train injector` wrote; none when empty.
        scans: HDF5 file of whole scans with the readers' outlines (see `data.scans`); none when empty.
    """

    folder: str = ""
    crops: str
    table: str
    train_folds: list[int]
    validation_folds: list[int]
    split: Literal["patient", "nodule"] = "patient"
    min_readers: int
    background_folder: str
    background: list[BackgroundFile]
    hard_negatives: str = ""
    injector: str = ""
    scans: str = ""


@dataclass(frozen=True, kw_only=True)
class GeneratorNetwork:
    """The table `generator`; `threshold` cuts the nodule image into a mask, the rest builds the network."""

    kind: Literal["paper", "strided", "unet", "gated-unet", "unet-2d", "inception-unet", "nasnet-gcn", "monai-unet"]
    threshold: float
    width: int | None = None
    input_skip: bool | None = None
    planes: Literal[1, 2, 3] | None = None


@dataclass(frozen=True, kw_only=True)
class CriticNetwork:
    """The table `critic`; `slab` is the size (D, H, W) of patches that have no more slices than a slab."""

    width: int
    stride: int
    slab: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class SegmenterLoss:
    """The table `loss`: weights of the generator's terms, and what the terms themselves need.

    Attributes:
        batch_dice: weight of document 002's Dice over the whole batch.
        generalized_dice: weight of document 001's generalized Dice.
        nodule_weight: of a nodule's voxel in the cross-entropy; one of the background weighs 1.
    """

    mse: float
    dice: float
    cross_entropy: float
    sharpness: float
    perceptual: float
    perceptual_network: str
    adversarial: float
    adversarial_from_step: int
    critic_steps: int
    penalty: float
    batch_dice: float = 0.0
    generalized_dice: float = 0.0
    nodule_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SegmenterOptimizer:
    """The table `optimizer`: the rate is halved every `halve_every` epochs down to `floor`.

    The generator's optimizer is Adam, or gradient descent with Nesterov's momentum, the first of `betas`.
    """

    rate: float
    halve_every: int
    floor: float
    betas: list[float]
    ema_decay: float
    kind: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SegmenterSampling:
    """The table `sampling`.

    Attributes:
        sides: sizes (D, H, W) of patches.
        nodule: fraction of patches at nodules.
        surround: at what is around them.
        background: anywhere in the lungs of whole scans and backgrounds.
        pasted: there, with a nodule pasted in.
        injected: there, with a nodule that CT-GAN made.
        mass: there at half the resolution, with an enlarged nodule pasted in (see `ensemble`, coarse scale).
        negative: at what looks like a nodule and is none.
        slice: slices of whole scans and backgrounds over their whole field of view, half of them with a nodule.
        cavity: fraction of nodules made cavities.
        ground_glass: fraction of nodules made ground glass.
        faint_weight: how many times as often as others a nodule is taken that the readers rated less than solid.
        large_weight: likewise of nodules that are large enough to be enlarged to masses.
        planes: how many of axial, coronal and sagittal patches lie in.
        quarter_turns: Whether they are turned in their plane by quarters, too.
        degrees: Most by which they are turned in their plane, besides.
        zoom: Most by which they are enlarged or made smaller, natural logarithm.
    """

    sides: list[list[int]]
    nodule: float = 0.0
    surround: float = 0.0
    background: float = 0.0
    pasted: float = 0.0
    injected: float = 0.0
    mass: float = 0.0
    negative: float = 0.0
    slice: float = 0.0
    cavity: float = 0.0
    ground_glass: float = 0.0
    faint_weight: float = 1.0
    large_weight: float = 1.0
    planes: Literal[1, 2, 3] = 1
    quarter_turns: bool = True
    degrees: float = 15.0
    zoom: float = 0.15


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What the configurations of both branches have.

    Attributes:
        batch: samples of a micro-batch.
        window_hu: HU that become 0 and 1.
        validate_crops: about how many crops an epoch is validated on.
        micro_batches: of a step over all processes; 0: one for each process.
        workers: processes that sample ahead, for each training process.
        precision: "auto" is bf16 on GPUs and fp32 on CPUs.
        patience: epochs without a better validation score after which training ends; 0: never.
        start: a model, by name or folder, whose network training begins with; none when empty.
    """

    seed: int
    steps: int
    epoch_steps: int
    batch: int
    window_hu: list[float]
    validate_crops: int
    micro_batches: int = 0
    workers: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    patience: int = 0
    start: str = ""
    data: Data


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(TrainingConfig):
    """Configuration of the segmenter; its target is the CT inside the nodule ("intensity") or the mask ("binary")."""

    target: Literal["intensity", "binary"] = "intensity"
    generator: GeneratorNetwork
    critic: CriticNetwork
    loss: SegmenterLoss
    optimizer: SegmenterOptimizer
    sampling: SegmenterSampling


@dataclass(frozen=True, kw_only=True)
class NoduleNetNetwork:
    """The table `generator` of NoduleNet; its image is 0 outside of outlines, so `threshold` is."""

    kind: Literal["nodulenet"]
    threshold: float
    width: int | None = None


@dataclass(frozen=True, kw_only=True)
class NoduleNetOptimizer:
    """The table `optimizer`: the rate falls to a tenth at each of `drops`, fractions of the steps."""

    rate: float
    momentum: float
    weight_decay: float
    drops: list[float]
    ema_decay: float


@dataclass(frozen=True, kw_only=True)
class NoduleNetStages:
    """The table `stages`: fractions of the steps from which boxes are classified, and nodules outlined."""

    classify_from: float
    outline_from: float


@dataclass(frozen=True, kw_only=True)
class NoduleNetConfig(TrainingConfig):
    """Configuration of NoduleNet; its patches are the segmenter's."""

    target: Literal["intensity"] = "intensity"
    generator: NoduleNetNetwork
    optimizer: NoduleNetOptimizer
    stages: NoduleNetStages
    sampling: SegmenterSampling


@dataclass(frozen=True, kw_only=True)
class DetectorNetwork:
    """The table `detector`: see `LNHGLib.models.detector.build_detector`; slices are `slice_step_mm` apart."""

    backbone: Literal["light", "resnet50-fpn", "resnet50-c4"]
    slice_step_mm: int
    width: int | None = None
    anchors_px: list[int] | None = None
    aspect_ratios: list[float] | None = None
    min_score: float | None = None
    nms: float | None = None
    rpn_positive_iou: float | None = None
    rpn_negative_iou: float | None = None
    rpn_nms: float | None = None
    train_proposals: int | None = None
    roi_samples: int | None = None


@dataclass(frozen=True, kw_only=True)
class DetectorOptimizer:
    """The table `optimizer`: every epoch the rate is multiplied by `gamma`."""

    rate: float
    weight_decay: float
    gamma: float
    ema_decay: float


@dataclass(frozen=True, kw_only=True)
class DetectorSampling:
    """The table `sampling`.

    Attributes:
        mosaic: fraction of batches made of crops side by side; the rest are parts of chest slices.
        whole: fraction of batches made of whole slices of chests.
        tiles: crops of a mosaic along each side.
        tile: pixels of a crop along each side.
        chest: pixels of a part of a chest slice along each side.
        nodule: fraction of tiles cut through the nodule's middle part.
        placed: most nodules pasted into a chest slice.
        min_area: pixels of the smallest box that counts.
        negative: fraction of tiles, and of whole slices, at locations that look like nodules and are none.
    """

    mosaic: float
    tiles: int
    tile: int
    chest: int
    nodule: float
    placed: int
    min_area: int
    negative: float = 0.0
    whole: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(TrainingConfig):
    """Configuration of the detector."""

    detector: DetectorNetwork
    optimizer: DetectorOptimizer
    sampling: DetectorSampling


@dataclass(frozen=True, kw_only=True)
class ClassifierNetwork:
    """The table `classifier`: see `LNHGLib.models.classifier.build_classifier`."""

    kind: Literal["residual", "resnet-48", "mgi-cnn"]
    width: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifierOptimizer:
    """The table `optimizer`: the rate falls along half a cosine to 0."""

    rate: float
    weight_decay: float
    ema_decay: float


@dataclass(frozen=True, kw_only=True)
class ClassifierSampling:
    """The table `sampling`.

    Attributes:
        nodule: fraction of a batch that are nodules.
        scans: fraction of the nodules that come from whole scans.
        bright: fraction of the others that are bright places of lungs, vessels mostly, that the generator did not mark.
        crops: fraction of the rest that come from crops.
        shift: most voxels by which a field is moved off its candidate.
        turned: fraction of fields that are turned in any direction; the others about the patient's axis alone.
        scale: standard deviation of the logarithm of the factor by which a field is enlarged.
    """

    nodule: float
    scans: float
    bright: float
    crops: float
    shift: int
    turned: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(TrainingConfig):
    """Configuration of the candidate classifier.

    Attributes:
        models: names or folders of models whose generators mark the candidates; the first also gives bright places.
        without: patients that are left out of training, too.
    """

    classifier: ClassifierNetwork
    optimizer: ClassifierOptimizer
    sampling: ClassifierSampling
    models: list[str]
    without: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class InjectorNetwork:
    """The tables `injector` and `discriminator`: see `baselines.ct_gan`."""

    width: int


@dataclass(frozen=True, kw_only=True)
class InjectorLoss:
    """The table `loss`: the weight of the mean absolute difference; the discriminator's part weighs 1."""

    absolute: float


@dataclass(frozen=True, kw_only=True)
class InjectorOptimizer:
    """The table `optimizer`: both networks are trained by Adam, at one rate each."""

    rate: float
    discriminator_rate: float
    betas: list[float]
    ema_decay: float


@dataclass(frozen=True, kw_only=True)
class InjectorSampling:
    """The table `sampling`: least and greatest diameter of the nodules."""

    diameter_mm: list[float]


@dataclass(frozen=True, kw_only=True)
class InjectorConfig(TrainingConfig):
    """Configuration of CT-GAN."""

    injector: InjectorNetwork
    discriminator: InjectorNetwork
    loss: InjectorLoss
    optimizer: InjectorOptimizer
    sampling: InjectorSampling


def build(kind: type[T], table: dict, where: str = "") -> T:
    """Check a table of a configuration and make typed values of it.

    Args:
        kind: a configuration, or the type of one of its tables.
        table: as read from TOML, or from a checkpoint; words of older versions are understood.
        where: the table's own key with a point behind it; empty for a whole configuration.

    Raises:
        InputError: names a key that is unknown, missing or of another kind.
    """
    table = renamed(table) if not where else table
    types, known = get_type_hints(kind), {each.name: each for each in fields(kind)}
    for key in table:
        if key not in known:
            raise InputError(
                f"The configuration has no key `{where}{shown(key)}`, expected one of {nearest(key, known)}; "
                "correct the key."
            )
    for name, each in known.items():
        if name not in table and each.default is MISSING and each.default_factory is MISSING:
            raise InputError(f"The configuration lacks `{where}{name}`, expected {_expected(types[name])}; add it.")
    return kind(**{key: _checked(types[key], value, f"{where}{key}") for key, value in table.items()})


def _checked(kind: Any, value: Any, key: str) -> Any:
    """Return a value of the kind, of which a whole number may stand for any."""
    if NoneType in get_args(kind):
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if is_dataclass(kind) and isinstance(value, dict):
        return build(kind, value, f"{key}.")
    if get_origin(kind) is list and isinstance(value, list | tuple):
        return [_checked(get_args(kind)[0], item, key) for item in value]
    if get_origin(kind) is Literal and any(type(value) is type(one) and value == one for one in get_args(kind)):
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    raise InputError(f"`{key}` is {quoted(value)}, expected {_expected(kind)}; correct the configuration.")


def _expected(kind: Any) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    if get_origin(kind) is Literal:
        *others, last = map(str, get_args(kind))
        return f"{', '.join(others)} or {last}"
    if get_origin(kind) is list:
        return "a list"
    return names.get(kind, "a table")


def to_table(config: Any) -> dict:
    """Return a typed configuration as plain nested tables, which `build` takes; what was not given is left out."""

    def plain(value: Any) -> Any:
        if is_dataclass(value):
            return to_table(value)
        return [plain(item) for item in value] if isinstance(value, list) else value

    values = {each.name: getattr(config, each.name) for each in fields(config)}
    return {name: plain(value) for name, value in values.items() if value is not None}


def renamed(table: dict) -> dict:
    """Return a whole configuration with the words of today in place of older ones."""
    for old, new in OLD_KEYS.items():
        *path, name = old.split(".")
        part = reduce(lambda inner, key: inner.get(key) if isinstance(inner, dict) else None, path, table)
        if isinstance(part, dict) and name in part:
            changed = {new.rpartition(".")[2] if key == name else key: value for key, value in part.items()}
            table = table | {path[0]: changed} if path else changed
    return table


def read(path: Path) -> dict:
    """Read a TOML configuration; its `base` names files beside it, whose values hold where no later one has its own.

    Raises:
        InputError: a file is missing or is no TOML.
    """
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}), expected a TOML configuration; check --config."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no valid TOML ({shown(error, 80)}); mend it.") from error
    bases = config.pop("base", [])
    names = [bases] if isinstance(bases, str) else bases
    return reduce(_merged, [*(read(path.parent / name) for name in names), renamed(config)])


def _merged(base: dict, own: dict) -> dict:
    both = {key: _merged(base[key], own[key]) for key in base.keys() & own.keys() if isinstance(base[key], dict)}
    return base | own | both


def hold_out(config: dict, fold: int) -> dict:
    """Return the configuration that validates on one fold and trains on the others.

    Args:
        config: nested tables, as read.
        fold: number of the fold to validate on.

    Raises:
        InputError: the configuration has no such fold, or no valid table `data`.
    """
    data = build(Data, config.get("data", {}), "data.")
    folds = {*data.train_folds, *data.validation_folds}
    if fold not in folds:
        raise InputError(f"--fold is {fold}, expected one of {', '.join(map(str, sorted(folds)))}; give one of these.")
    split = {"train_folds": sorted(folds - {fold}), "validation_folds": [fold]}
    return config | {"data": config["data"] | split}


def override(config: dict, settings: list[str]) -> dict:
    """Return the configuration with `settings` in place of what it held.

    Args:
        config: nested tables, as read.
        settings: each "key=value"; dots in the key lead into tables, the value is TOML or else a bare word.

    Raises:
        InputError: a setting is no such text, its key is not in the configuration, or its value is of another kind.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            met = quoted(setting)
            raise InputError(f"--set {met} has no value, expected key=value, as in loss.mse=0; add the value.")
        try:
            value: object = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        name = OLD_KEYS.get(key.strip(), key.strip())
        config = _replaced(config, name.split("."), value, name)
    return config


def _replaced(table: dict, path: list[str], value: object, key: str) -> dict:
    name, *rest = path
    if name not in table or (rest and not isinstance(table[name], dict)):
        raise InputError(
            f"--set {shown(key)}: no {quoted(name)} here, expected one of {nearest(name, table)}; the file names all "
            "keys."
        )
    old = table[name]
    if rest:
        return table | {name: _replaced(old, rest, value, key)}
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(old):
        raise InputError(f"--set {key} is {quoted(value)}, expected a value like {quoted(old)}; give such a value.")
    return table | {name: value}
