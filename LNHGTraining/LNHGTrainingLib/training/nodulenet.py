"""Train NoduleNet: its three steps learn one after the other on one body, with a plain sum of losses.

    lnhg-train train nodulenet --config nodulenet.toml --data ../shared/data runs/nodulenet [--resume]

First boxes are found; from a third of the steps on they are sorted, too, and from two fifths on nodules are outlined.
The averaged network is scored like the segmenter, by Dice on validation crops.
"""

from pathlib import Path

import torch
from LNHGLib.models.documents.boxes_3d import decode, encode, overlaps
from LNHGLib.models.documents.nodulenet import Maps
from torch import Tensor, nn

from LNHGTrainingLib.config import NoduleNetConfig, build
from LNHGTrainingLib.data.segmenter_batches import Batch
from LNHGTrainingLib.training import run
from LNHGTrainingLib.training.distributed import MicroBatches, mean_gradients
from LNHGTrainingLib.training.ema import update_ema
from LNHGTrainingLib.training.losses import precision, set_rate
from LNHGTrainingLib.training.nodulenet_losses import (
    POSITIVE,
    Nodules,
    class_losses,
    proposal_losses,
    sample_boxes,
    tversky_loss,
)
from LNHGTrainingLib.training.segmenter import GeneratorRun

DROP = 0.1
"""Factor of the rate at each of `drops`."""


class NoduleNetRun(GeneratorRun):
    """Network, optimizer and counters of one run.

    Args:
        config: of the training (see Resources/nodulenet.toml).
        device: where to compute.
    """

    stateful = ("generator", "ema", "optimizer")
    config: NoduleNetConfig

    def __init__(self, config: NoduleNetConfig, device: torch.device) -> None:
        super().__init__(config, device)
        options = {"momentum": config.optimizer.momentum, "weight_decay": config.optimizer.weight_decay}
        self.optimizer = torch.optim.SGD(self.generator.parameters(), lr=config.optimizer.rate, **options)

    def reached(self, fraction: float) -> bool:
        """Return whether so many of all steps are done."""
        return self.step >= fraction * self.config.steps

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the steps that learn by now, by name."""
        with precision(self.config.precision, self.device):
            maps = self.generator.maps(batch.image)
            logits, offsets = self.generator.propose(maps)
        logits, offsets, stages = logits.float(), offsets.float(), self.config.stages
        patches = [Nodules.of(mask[0], known[0]) for mask, known in zip(batch.mask, batch.known, strict=True)]
        names = ("proposal", "proposal_box")
        terms = dict(zip(names, proposal_losses(logits, offsets, self.generator.anchors(maps), patches), strict=True))
        boxes = [nodules.boxes[:0] for nodules in patches]
        if self.reached(stages.classify_from):
            proposals = self.generator.proposals(maps, logits.detach(), offsets.detach())
            losses, boxes = self.classification(maps, [proposed for proposed, _ in proposals], patches)
            terms |= losses
        if self.reached(stages.outline_from):
            terms["outline"] = self.outlining(maps, boxes, patches)
        return terms

    def classification(
        self, maps: Maps, proposals: list[Tensor], patches: list[Nodules]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the losses of the second step, and the boxes that it makes of what it learned from, of each patch.

        Args:
            maps: of the batch.
            proposals: boxes of each patch.
            patches: the nodules of each.
        """
        parts, moved = [], []
        for number, (proposed, nodules) in enumerate(zip(proposals, patches, strict=True)):
            boxes, positive = sample_boxes(proposed, nodules)
            with precision(self.config.precision, self.device):
                logits, offsets = self.generator.classify(maps, number, boxes)
            own = boxes[positive]
            targets = encode(nodules.boxes[nodules.match(own)[1]], own) if len(own) else own
            parts.append((logits.float(), offsets.float(), positive, targets))
            moved.append(decode(offsets.detach()[:, 1].float(), boxes))
        losses = class_losses(*(torch.cat(part) for part in zip(*parts, strict=True)))
        return dict(zip(("class", "class_box"), losses, strict=True)), moved

    def outlining(self, maps: Maps, boxes: list[Tensor], patches: list[Nodules]) -> Tensor:
        """Return the loss of the third step, a sum over nodules, each in the best box at it, or else in its own.

        Args:
            maps: of the batch.
            boxes: that the second step makes, of each patch.
            patches: the nodules of each.
        """
        total = maps.decoded.sum() * 0
        for number, (found, nodules) in enumerate(zip(boxes, patches, strict=True)):
            for index, box in enumerate(nodules.boxes):
                near = overlaps(box[None], found)[0]
                best = found[near.argmax()] if len(found) and near.max() >= POSITIVE else box
                with precision(self.config.precision, self.device):
                    place, logits = self.generator.outline(maps, number, best.tolist())
                mask = nodules.numbers[place] == index + 1
                if mask.any():
                    total = total + tversky_loss(logits.float(), mask.float(), nodules.known[place].float())
        return total

    def train_step(self, batches: MicroBatches[Batch]) -> dict[str, float]:
        """Update the network once on the plain sum of its losses; return them and the rate."""

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            terms = self.losses(batch.to(self.device))
            return sum(terms.values()), terms

        schedule = self.config.optimizer
        rate = schedule.rate * DROP ** sum(map(self.reached, schedule.drops))
        set_rate(self.optimizer, rate)
        self.generator.train()
        values = mean_gradients(self.generator, batches, self.micro_batches, loss, [self.config.seed, self.step])
        nn.utils.clip_grad_norm_(self.generator.parameters(), 5.0, error_if_nonfinite=True)
        self.optimizer.step()
        update_ema(self.ema, self.generator, schedule.ema_decay, self.step)
        return values | {"rate": rate}


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """As `run.train`, for NoduleNet.

    Args:
        config: the configuration as read, with the folder of the data.
        out: folder of the run.
        resume: go on from `last.pt`, if there is one.
        device: "cpu", "auto", "cuda" or "cuda:N".
    """
    return run.train(NoduleNetRun, build(NoduleNetConfig, config), out, resume, device)
