"""The anatomy of the synthetic chest: body wall, organs, lungs with their vessels and airways."""

import numpy as np

from LNHGLib.phantom.canvas import AIR_HU, Canvas, Field, ellipsoid, oval, oval_distance, smooth_union
from LNHGLib.phantom.trees import MAX_RADIUS_MM, Tree, beside, tube_fraction

FAT, MUSCLE, BLOOD, LIVER, LUNG = -95, 50, 42, 62, -858
"""In HU."""
RISE_HU = 0.35
"""Of the lung per mm to the back: the patient lies on it."""

LEAVES = {"artery": 800, "vein": 760}
"""Branches of each lung's trees that end near the pleura or between the others."""

LEAF_MM = {"artery": 0.67, "vein": 0.65}
AIRWAY_SCALE, AIRWAY_WALL_MM = 0.72, 0.55
"""Radius of an airway's lumen relative to its artery's; thickness of its wall."""

THINNEST_AIRWAY_MM = 0.85
AORTA = (24, 38)
"""x, y of the descending aorta in mm."""

GREAT_VESSELS = (
    ((-6, -24, 105), (-8, -20, 160), 15, 15),
    ((-8, -20, 160), (6, -4, 172), 14, 14),
    ((6, -4, 172), (22, 26, 169), 13, 13),
    ((22, 26, 169), (24, 38, 152), 12.5, 12.5),
    ((24, 38, 152), (24, 38, -30), 12, 12),
    ((10, -34, 112), (16, -20, 136), 13, 13),
    ((16, -18, 136), (-34, 4, 131), 9.5, MAX_RADIUS_MM),
    ((16, -18, 138), (38, 10, 138), 9, MAX_RADIUS_MM),
    ((-26, -18, 100), (-25, -20, 185), 9, 9),
    ((-25, -20, 185), (-28, -22, 260), 6, 6),
    ((-25, -20, 182), (24, -26, 206), 6, 6),
    ((24, -26, 206), (24, -18, 260), 6, 6),
    ((-4, -14, 172), (-16, -6, 260), 5, 5),
    ((8, -2, 174), (15, 2, 260), 4, 4),
    ((16, 12, 172), (20, 12, 260), 4.5, 4.5),
    ((-20, 0, 114), (-38, 0, 118), 6, MAX_RADIUS_MM),
    ((22, 4, 116), (40, 2, 120), 6, MAX_RADIUS_MM),
    ((-20, 8, 104), (-36, 14, 100), 6, MAX_RADIUS_MM),
    ((22, 10, 104), (38, 18, 101), 6, MAX_RADIUS_MM),
)
"""Aorta, pulmonary trunk and arteries, superior vena cava with its branches, arteries of head and arms, lung veins, by
their ends in mm and the radii there. Those that go on as a lung's tree taper to it."""

HORIZONTAL_MM = 138.0
"""Height of the fissure between the right upper and middle lobe."""

CARINA, TRACHEA_TOP, TRACHEA_MM = (2.0, 12.0, 154.0), (1.0, 4.0, 262.0), 8.5
HILA = {-1: (-34.0, 6.0, 132.0), 1: (38.0, 10.0, 138.0)}
"""Where the lungs' arteries begin, by side: -1 is right."""

VEINS = {-1: ((-38.0, 0.0, 118.0), (-36.0, 14.0, 100.0)), 1: ((40.0, 2.0, 120.0), (38.0, 18.0, 101.0))}
"""Where the upper and the lower vein end."""


class Chest:
    """Signed distances in mm, negative inside, of the shapes that others are fitted to."""

    def __init__(self, c: Canvas) -> None:
        uneven = 1 + 0.012 * np.sin(c.x / 23 + 1) + 0.012 * np.cos(c.y / 19 + c.x / 40)
        self.body = np.hypot(c.x, c.y) - oval(c.x, c.y, 161.0, 116.0, 2.3) * uneven
        groove = 1 - 0.14 * np.exp(-((c.x / 30) ** 2)) * (c.y > 0)
        edge = oval(c.x, c.y + 4, 135.0, 98.0, 2.2) * uneven * groove
        rise = np.clip((c.z - 80) / 176, 0, 1)
        self.cavity = np.hypot(c.x, c.y + 4) - edge * np.sqrt(1 - rise**4)
        self.heart = smooth_union(
            ellipsoid(c, (20, -34, 78), (52, 38, 48), tilt=0.45), ellipsoid(c, (-16, -22, 88), (33, 34, 46)), 12
        )
        self.spine = oval_distance(c.x, c.y - 66, 18.0, 15.0)
        height = np.where(c.x < 0, self._dome(c, -66, 70), self._dome(c, 66, 60))
        steep = np.hypot(*np.gradient(height[0], *c.spacing_mm[1:]))
        self.diaphragm = (height - c.z) / np.sqrt(1 + steep**2).astype(np.float32)
        self.mediastinum = self._mediastinum(c)
        self.lungs = np.maximum(self.cavity, self.diaphragm)
        np.maximum(self.lungs, -self.mediastinum, out=self.lungs)
        top = np.clip((c.z - 110) / 132, 0, None) ** 4
        across = (np.abs(np.abs(c.x) - 58) / 82) ** 2.5 + (np.abs(c.y - 4) / 104) ** 2.5
        np.maximum(self.lungs, (across + top - 1) * 30, out=self.lungs)

    @staticmethod
    def _dome(c: Canvas, x: float, top: float) -> Field:
        """Return the height in mm of one half of the diaphragm, steep toward the ribs."""
        from_middle = ((c.x - x) / 64) ** 2 + ((c.y + 14) / 88) ** 2
        return top - 20 * from_middle - 34 * np.clip(from_middle - 0.35, 0, 2) ** 2

    def _mediastinum(self, c: Canvas) -> Field:
        """Return the distance of all between the lungs, rounded where its parts meet."""
        thick = 4 + 9 * np.exp(-(((c.y - 46) / 26) ** 2)) + 8 * np.exp(-(((c.y + 20) / 30) ** 2))
        inlet = 20 * np.clip((c.z - 165) / 35, 0, 1) * np.exp(-(((c.y + 12) / 26) ** 2))
        whole = np.abs(c.x - 2) - thick - inlet
        whole = smooth_union(whole, self.spine - 3, 14)
        whole = smooth_union(whole, self.heart - 2.5, 12)
        tubes = [*GREAT_VESSELS, (CARINA, TRACHEA_TOP, TRACHEA_MM + 1, TRACHEA_MM + 1)]
        for start, end, *radii in tubes:
            box, distance = c.tube_distance(np.array(start), np.array(end), *radii, 22)
            whole[box] = smooth_union(whole[box], distance - 1.5, 12)
        return whole

    def lobe(self, points: np.ndarray) -> np.ndarray:
        """Return the lobe of points: 0 upper, 1 lower, 2 middle.

        Args:
            points: (N, 3) x, y, z in mm.
        """
        x, y, z = points.T
        middle = (x < 0) & (z < HORIZONTAL_MM)
        return np.where(z < oblique_fissure(x, y), 1, np.where(middle, 2, 0))

    def depth(self, c: Canvas, points: np.ndarray) -> np.ndarray:
        """Return the depth in mm of points inside the lungs, roughly; negative outside.

        Args:
            c: The image.
            points: (..., 3) x, y, z in mm.
        """
        return -c.values(self.lungs, points)


def oblique_fissure(x: Field, y: Field) -> Field:
    """Return the height in mm of the fissure above the lower lobe, which rises toward the back.

    Args:
        x: In mm.
        y: In mm.
    """
    return np.where(x < 0, 96 + 0.95 * y, 102 + 1.0 * y) + 4 * np.sin(x / 17) + 3 * np.sin(y / 21)


def draw_wall(c: Canvas, chest: Chest) -> None:
    """Draw table, skin, fat, muscle with fat between its fibers, scapulae, clavicles, ribs and sternum.

    Args:
        c: The image.
        chest: The shapes they are fitted to.
    """
    c.paint(np.abs(c.y - 121 + 0.0006 * c.x**2) - 1.5, -120)
    c.paint(chest.body, 10)
    c.paint(chest.body + 2.5, FAT)
    c.paint(chest.body + 12, MUSCLE - 130 * np.clip(c.coarse - 0.8, 0, 1))
    blade = np.maximum(np.abs(chest.cavity - 20) - 2.2, np.maximum(np.abs(c.y - 34) - 32, 130 - c.z))
    c.paint(blade, 480)
    for side in (-1, 1):
        c.tube(np.array([14 * side, -92, 206]), np.array([118 * side, -34, 238]), 5.5, 4.5, 520)
    turns = (c.z + 30 * (1 - (c.y + 4) / 88) + 0.06 * np.abs(c.x)) / 27
    rib = np.sqrt((16.2 * (turns - np.floor(turns) - 0.5)) ** 2 + (chest.cavity - 6.5) ** 2) - 3.8
    cartilage = c.y < -64
    for shell_mm, cartilage_hu, bone_hu in ((0.0, 110, 620), (1.5, 95, 210)):
        c.paint(rib + shell_mm, np.where(cartilage, cartilage_hu, bone_hu))
    sternum = np.maximum(oval_distance(c.x, c.y + 99, 19.0, 6.5), np.abs(c.z - 145) - 72)
    c.paint(sternum, 420)
    c.paint(sternum + 1.8, 150)


def draw_organs(c: Canvas, chest: Chest) -> None:
    """Draw fat inside the rib cage, abdominal organs with stomach gas, heart, great vessels, esophagus and spine.

    Args:
        c: The image.
        chest: The shapes they are fitted to.
    """
    c.paint(chest.cavity, FAT + 15 * c.coarse)
    abdomen = np.maximum(chest.cavity, -chest.diaphragm)
    c.paint(abdomen, MUSCLE)
    below = np.maximum(chest.cavity + 2.5, 2.5 - chest.diaphragm)
    c.paint(np.maximum(below, c.x - 22 + 0.25 * c.y), LIVER + 5 * c.coarse)
    stomach = np.maximum(below, ellipsoid(c, (66, -24, 24), (44, 40, 38)))
    c.paint(stomach, 28)
    c.paint(np.maximum(stomach + 4, c.y + 36), AIR_HU)
    c.paint(np.maximum(below, ellipsoid(c, (88, 40, 22), (26, 32, 34))), 54)
    c.paint(chest.heart, BLOOD)
    for start, end, *radii in GREAT_VESSELS:
        c.tube(np.array(start), np.array(end), *radii, BLOOD)
    c.paint(np.hypot(c.x - 5, c.y - 31) - 6.5, 34)
    disc = np.abs(c.z % 26 - 13) - 10
    c.paint(chest.spine, 95)
    vertebra = np.maximum(chest.spine, disc)
    c.paint(vertebra, 480)
    c.paint(vertebra + 1.8, 190 + 30 * c.fine)
    arch = np.maximum(oval_distance(c.x, c.y - 88, 15.0, 13.0), 70 - c.y)
    wings = np.maximum(np.hypot((np.abs(c.x) - 26) / 2.6, c.y - 84) - 4.5, disc + 3)
    process = np.maximum(np.maximum(np.abs(c.x) - 3.5, np.abs(c.y - 98) - 9), disc + 2)
    for bone in (arch, wings, process):
        c.paint(bone, 430)
    c.paint(oval_distance(c.x, c.y - 88, 9.0, 8.0), 22)


def draw_lungs(c: Canvas, chest: Chest) -> list[Tree]:
    """Draw parenchyma, fissures, arteries with the airways beside them, and veins.

    Args:
        c: The image.
        chest: The shapes they are fitted to.

    Returns:
        The arteries of both lungs.
    """
    c.paint(chest.lungs, LUNG + 22 * c.fine + 12 * c.coarse + RISE_HU * c.y)
    oblique = oblique_fissure(c.x, c.y) - c.z
    horizontal = np.abs(c.z - HORIZONTAL_MM - 3 * np.sin(c.x / 20) - 3 * np.sin(c.y / 17))
    fissure = np.minimum(np.abs(oblique) * 0.7, np.where((c.x < 0) & (oblique < 0), horizontal, np.inf)) - 0.3
    c.paint(np.maximum(fissure, chest.lungs + 1), -700)
    arteries, vessels, airways = [], [], []
    for side in HILA:
        reached = {kind: _lobes(c, chest, side, count) for kind, count in LEAVES.items()}
        outward = np.array([side, 0.0, 0.0])
        arteries.append(Tree(c.rng, np.array(HILA[side]), outward, reached["artery"], LEAF_MM["artery"]))
        lines = arteries[-1].center_lines()
        airways.append(beside(lines, np.array([0.0, 0.7, -0.7]), AIRWAY_SCALE, AIRWAY_WALL_MM))
        vessels.append(lines)
        upper, lower, middle = reached["vein"]
        for root, lobes in zip(VEINS[side], ([upper, middle], [lower]), strict=True):
            vessels.append(Tree(c.rng, np.array(root), outward, lobes, LEAF_MM["vein"]).center_lines())
    _draw_airways(c, chest, airways)
    points, radii = (np.concatenate([lines[part] for lines in vessels]) for part in (0, 2))
    fraction = tube_fraction(c, points, radii) * np.clip(1 - chest.lungs / 3, 0, 1)
    c.hu += fraction * (BLOOD - c.hu)
    return arteries


def _lobes(c: Canvas, chest: Chest, side: int, count: int) -> list[np.ndarray]:
    """Return random points of the lobes of a lung, at least 3 mm from their edges."""
    inside = np.empty((0, 3))
    while len(inside) < count:
        points = c.rng.uniform((5, -95, 15), (135, 95, 235), (4 * count, 3)) * (side, 1, 1)
        off_fissure = np.abs(points[:, 2] - oblique_fissure(points[:, 0], points[:, 1])) > 4
        inside = np.concatenate([inside, points[off_fissure & (chest.depth(c, points) > 3)]])
    inside = inside[:count]
    lobes = chest.lobe(inside)
    return [inside[lobes == lobe] for lobe in range(3)]


def _draw_airways(c: Canvas, chest: Chest, airways: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw trachea, main bronchi and the airways beside the arteries: walls first, then the lumen."""
    carina, top = np.array(CARINA), np.array(TRACHEA_TOP)
    for grow_mm, hu in ((1.2, 0), (0.0, AIR_HU)):
        c.tube(carina, top, TRACHEA_MM + grow_mm, TRACHEA_MM + grow_mm, hu)
        for points, radii in airways:
            c.tube(carina, points[0], 6.0 + grow_mm, radii[0] + grow_mm, hu)
    points, radii = (np.concatenate(part) for part in zip(*airways, strict=True))
    allowed = np.clip(-np.maximum(chest.diaphragm, -chest.heart) / 3, 0, 1)
    wide = radii > THINNEST_AIRWAY_MM
    for grow_mm, hu in ((AIRWAY_WALL_MM, -20), (0.0, AIR_HU)):
        c.hu += tube_fraction(c, points[wide], radii[wide] + grow_mm) * allowed * (hu - c.hu)
