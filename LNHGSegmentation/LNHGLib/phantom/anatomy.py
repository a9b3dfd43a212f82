"""The anatomy of the synthetic chest: body wall, organs, lungs with their vessels and airways."""

import numpy as np

from LNHGLib.phantom.canvas import AIR_HU, Canvas, Field, Point, Tree, ellipsoid, oval, oval_distance

FAT, MUSCLE, BLOOD, LIVER, LUNG, LUMEN = -95, 50, 42, 62, -862, -985
"""In HU."""
LUNG_POINTS = 1000
"""Points of each lung that vessels and airways reach."""

GREAT_VESSELS = (
    ((-6, -24, 70), (-8, -20, 126), 15),
    ((-8, -20, 126), (6, -4, 138), 14),
    ((6, -4, 138), (22, 26, 134), 13),
    ((22, 26, 134), (24, 36, 122), 12.5),
    ((8, -30, 82), (16, -18, 104), 13),
    ((16, -18, 104), (-34, 4, 98), 9.5),
    ((16, -18, 104), (36, 6, 102), 9.5),
    ((-25, -18, 70), (-24, -20, 152), 9),
    ((-24, -20, 152), (-34, -24, 198), 6),
    ((-24, -20, 148), (34, -32, 172), 6),
    ((34, -32, 172), (42, -24, 198), 6),
    ((-4, -14, 136), (-24, -6, 198), 5),
    ((8, -2, 138), (14, 0, 198), 4),
    ((16, 12, 136), (30, 14, 198), 4.5),
)
"""Aorta, pulmonary trunk and arteries, superior vena cava with its branches, arteries of head and arms."""


class Chest:
    """Signed distances in mm, negative inside, of the shapes that others are fitted to."""

    def __init__(self, c: Canvas) -> None:
        radius = np.hypot(c.x, c.y)
        uneven = 1 + 0.012 * np.sin(c.x / 23 + 1) + 0.012 * np.cos(c.y / 19 + c.x / 40)
        self.body = radius - oval(c.x, c.y, 148.0, 104.0, 2.3) * uneven
        rise = np.clip((c.z - 62) / 126, 0, 1)
        groove = 1 - 0.14 * np.exp(-((c.x / 30) ** 2)) * (c.y > 0)
        edge = oval(c.x, c.y + 6, 121.0, 84.0, 2.3) * uneven * groove
        self.cavity = np.hypot(c.x, c.y + 6) - edge * np.sqrt(1 - rise**2.6)
        self.heart = ellipsoid(c, (20, -28, 62), (54, 40, 46), tilt=0.45)
        self.spine = oval_distance(c.x, c.y - 62, 18.0, 15.0)
        right, left = (47 - ((c.x - x) ** 2 / 145 + (c.y + 8) ** 2 / 115) for x in (-58, 60))
        self.diaphragm = np.where(c.x < 0, right, left - 9) - c.z
        waist = 9 + 15 * np.exp(-(((c.y - 55) / 40) ** 2)) + 14 * np.exp(-(((c.y + 12) / 28) ** 2))
        self.mediastinum = np.abs(c.x - 2) - waist
        self.lungs = np.maximum(self.cavity, self.diaphragm * np.float32(0.8))
        for solid in (self.mediastinum, self.heart - 3, self.spine - 3, tube_z(c, (24, 36), 13.0)):
            np.maximum(self.lungs, -solid, out=self.lungs)

    def depth(self, c: Canvas, point: Point) -> float:
        """Return the depth in mm of a point inside the lungs, roughly; negative outside.

        Args:
            c: The image.
            point: (3,) x, y, z in mm.
        """
        return -c.value(self.lungs, point)


def draw_wall(c: Canvas, chest: Chest) -> None:
    """Draw table, skin, fat, muscle with fat between its fibers, scapulae, clavicles, ribs and sternum.

    Args:
        c: The image.
        chest: The shapes they are fitted to.
    """
    c.paint(np.abs(c.y - 112 + 0.0006 * c.x**2) - 1.5, -120)
    c.paint(chest.body, 10)
    c.paint(chest.body + 2.5, FAT)
    c.paint(chest.body + 12, MUSCLE - 130 * np.clip(c.coarse - 0.8, 0, 1))
    blade = np.maximum(np.abs(chest.cavity - 21) - 2.2, np.maximum(np.abs(c.y - 30) - 32, 96 - c.z))
    c.paint(blade, 480)
    for side in (-1, 1):
        c.tube(np.array([14 * side, -84, 158]), np.array([112 * side, -30, 186]), 5.5, 4.5, 520)
    around = (c.z + 22 * (1 - (c.y + 6) / 80)) % 25 - 12.5
    rib = np.hypot(0.6 * around, chest.cavity - 6.5) - 3.8
    cartilage = c.y < -58
    c.paint(rib, np.where(cartilage, 110, 620))
    c.paint(rib + 1.5, np.where(cartilage, 95, 210))
    sternum = np.maximum(oval_distance(c.x, c.y + 93, 19.0, 6.5), np.abs(c.z - 105) - 62)
    c.paint(sternum, 420)
    c.paint(sternum + 1.8, 150)


def draw_organs(c: Canvas, chest: Chest) -> None:
    """Draw fat inside the rib cage, abdominal organs with stomach gas, heart, great vessels, esophagus and spine.

    Args:
        c: The image.
        chest: The shapes they are fitted to.
    """
    c.paint(chest.cavity, FAT + 15 * c.coarse)
    below = np.maximum(chest.cavity + 2.5, 2.5 - chest.diaphragm)
    c.paint(np.maximum(np.maximum(chest.cavity, -chest.diaphragm), -2.5 - below), MUSCLE)
    c.paint(np.maximum(below, c.x - 22 + 0.25 * c.y), LIVER + 5 * c.coarse)
    stomach = np.maximum(below, ellipsoid(c, (62, -22, 8), (44, 40, 34)))
    c.paint(stomach, 28)
    c.paint(np.maximum(stomach + 4, c.y + 34), AIR_HU)
    c.paint(np.maximum(below, ellipsoid(c, (84, 36, 10), (24, 30, 30))), 54)
    c.paint(chest.heart, BLOOD)
    c.paint(tube_z(c, (24, 36), 12.5), BLOOD)
    for start, end, radius in GREAT_VESSELS:
        c.tube(np.array(start), np.array(end), radius, radius, BLOOD)
    c.paint(tube_z(c, (5, 27), 6.5), 34)
    disc = np.abs(c.z % 26 - 13) - 10
    c.paint(chest.spine, 95)
    vertebra = np.maximum(chest.spine, disc)
    c.paint(vertebra, 480)
    c.paint(vertebra + 1.8, 190 + 30 * c.fine)
    arch = np.maximum(oval_distance(c.x, c.y - 84, 15.0, 13.0), 66 - c.y)
    wings = np.maximum(np.hypot((np.abs(c.x) - 26) / 2.6, c.y - 80) - 4.5, disc + 3)
    process = np.maximum(np.maximum(np.abs(c.x) - 3.5, np.abs(c.y - 94) - 9), disc + 2)
    for bone in (arch, wings, process):
        c.paint(bone, 430)
    c.paint(oval_distance(c.x, c.y - 84, 9.0, 8.0), 22)


def draw_lungs(c: Canvas, chest: Chest) -> list[Tree]:
    """Draw parenchyma, fissures, arteries, veins and airways.

    Args:
        c: The image.
        chest: The shapes they are fitted to.

    Returns:
        The arteries of both lungs.
    """
    tissue = LUNG + 26 * c.fine + 14 * c.coarse + 0.3 * c.y
    c.paint(chest.lungs, tissue)
    slope = np.where(c.x < 0, 92 - 0.9 * c.y, 100 - 0.95 * c.y) + 4 * np.sin(c.x / 17)
    horizontal = np.maximum(np.abs(c.z - 96 - 3 * np.sin(c.x / 20)) * 1.2, np.maximum(c.x, c.z - slope))
    fissure = np.minimum(np.abs(c.z - slope) * 0.73, horizontal) - 0.35
    c.paint(np.maximum(fissure, chest.lungs + 1), -690)
    arteries, airways = [], []
    for side, hilum in ((-1, (-36.0, 6.0, 97.0)), (1, (40.0, 8.0, 101.0))):
        inside = np.empty((0, 3))  # more than 3 mm inside this lung
        while len(inside) < LUNG_POINTS:
            sampled = c.rng.uniform((5, -90, 5), (125, 78, 190), (4 * LUNG_POINTS, 3)) * (side, 1, 1)
            inside = np.concatenate([inside, [point for point in sampled if chest.depth(c, point) > 3]])
        arteries.append(Tree(c.rng, np.array(hilum), inside[:500], 0.68))
        veins = Tree(c.rng, np.array([30.0 * side, -2.0, 80.0]), inside[500:LUNG_POINTS], 0.62)
        for tree in (arteries[-1], veins):
            tree.draw(c, 0.0, BLOOD)
        central = inside[np.linalg.norm(inside - hilum, axis=1) < 55][:30]
        airways.append(Tree(c.rng, np.add(hilum, (-4.0 * side, 4.0, -2.0)), central, 0.9))
    carina, trachea = np.array([2.0, 9.0, 114.0]), np.array([1.0, 0.0, 202.0])
    for grow_mm, hu in ((0.9, -60), (0.0, LUMEN)):
        c.tube(trachea, carina, 8.5 + grow_mm, 8.5 + grow_mm, hu)
        for tree in airways:
            c.tube(carina, tree.points[0], 6.5 + grow_mm, tree.radii[0] + 1.5 + grow_mm, hu)
        for tree in airways:
            tree.draw(c, grow_mm, hu)
    return arteries


def tube_z(c: Canvas, center: tuple[float, float], radius: float) -> Field:
    """Return the signed distance in mm of a vertical vessel up to the arch of the aorta.

    Args:
        c: The image.
        center: x, y in mm.
        radius: In mm.
    """
    return np.maximum(np.hypot(c.x - center[0], c.y - center[1]) - radius, c.z - 124)
