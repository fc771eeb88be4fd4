"""The parts of a `shapes` image: numbers, textures, objects, clutter, light.

Letters: n images at once, planes of (n, 32, 32) float32; x to the right, y down, in pixels.
Only +, -, *, /, sqrt, floor, comparisons and minima: what every machine rounds alike.
"""

from __future__ import annotations

import numpy as np

SIZE = 32
_F = np.float32
_NUMBERS = 192  # numbers that an image may draw, beside its noise
_NOISE_WORDS = 3 * SIZE * SIZE * 2 // 8  # two bytes a value
_WORDS = _NUMBERS // 2 + _NOISE_WORDS  # of 64 bits, for each image
_Y, _X = np.meshgrid(np.arange(SIZE, dtype=_F), np.arange(SIZE, dtype=_F), indexing="ij")


class Numbers:
    """The random numbers of images start..start+n-1, handed out in order."""

    def __init__(self, seed: int, split: int, start: int, n: int):
        generator = np.random.Philox(key=np.array([seed, split], np.uint64))
        # Philox counts in blocks of four words.
        generator.advance(start * (_WORDS // 4))
        words = generator.random_raw(n * _WORDS).reshape(n, _WORDS).astype("<u8", copy=False)
        drawn = np.ascontiguousarray(words[:, :_NUMBERS // 2]).view("<u4")
        self.units = (drawn >> np.uint32(8)).astype(_F) * _F(2.0**-24)
        self.bytes = np.ascontiguousarray(words[:, _NUMBERS // 2:]).view(np.uint8)
        self.used = 0

    def take(self, count: int) -> np.ndarray:
        """(n, count) numbers in [0, 1)."""
        self.used += count
        if self.used > _NUMBERS:
            raise RuntimeError(f"an image draws {self.used} numbers, expected at most {_NUMBERS}")
        return self.units[:, self.used - count:self.used]

    def between(self, count: int, low: float, high: float) -> np.ndarray:
        """(n, count) numbers in [low, high)."""
        return _F(low) + _F(high - low) * self.take(count)

    def noise(self, channel: int, strength: float = 0.05) -> np.ndarray:
        """(n, 32, 32): independent, triangular, in (-strength, strength)."""
        pair = self.bytes.reshape(len(self.bytes), 3, 2, SIZE, SIZE)[:, channel].astype(_F)
        return (pair[:, 0] - pair[:, 1]) * _F(strength / 255)


def cos_sin(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of a number of turns in [0, 1), by their series: the same bits anywhere."""
    quarter = np.floor(turns.astype(np.float64) * 4)
    angle = (turns * 4.0 - quarter - 0.5) * (np.pi / 2)  # -pi/4..pi/4
    square = angle * angle
    cosine = 1 + square * (-1 / 2 + square * (1 / 24 + square * (-1 / 720 + square / 40320)))
    sine = angle * (1 + square * (-1 / 6 + square * (1 / 120 + square * (-1 / 5040))))
    # Back from the quarter's middle, which lies at 45 degrees, to the quarter itself.
    half = np.sqrt(0.5)
    cosine, sine = (cosine - sine) * half, (cosine + sine) * half
    for _ in range(3):
        turn = quarter > 0
        cosine, sine = np.where(turn, -sine, cosine), np.where(turn, cosine, sine)
        quarter = quarter - 1
    return cosine.astype(_F), sine.astype(_F)


def _plane(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 1, 1)


def _saw(z: np.ndarray) -> np.ndarray:
    """The part behind the point, folded: a triangle wave in 0..1."""
    z -= np.floor(z)
    z *= 2
    z -= 1
    return np.abs(z, out=z)


def stripes(u: np.ndarray, period: tuple[float, float]) -> np.ndarray:
    """A triangle wave of any direction. u (n, 4): direction, period, phase, sharpness."""
    cosine, sine = cos_sin(u[:, 0])
    frequency = 1 / (_F(period[0]) + _F(period[1] - period[0]) * u[:, 1])
    wave = _saw(_X * _plane(cosine * frequency) + _Y * _plane(sine * frequency)
                + _plane(u[:, 2]))
    sharpness = _plane(1 + 4 * u[:, 3])
    return np.clip((wave - _F(0.5)) * sharpness + _F(0.5), 0, 1)


def checks(u: np.ndarray) -> np.ndarray:
    """Two triangle waves across each other, multiplied. u (n, 4)."""
    cosine, sine = cos_sin(u[:, 0])
    frequency = 1 / (5 + 7 * u[:, 1])
    along = _saw(_X * _plane(cosine * frequency) + _Y * _plane(sine * frequency)
                 + _plane(u[:, 2])) - _F(0.5)
    across = _saw(_Y * _plane(cosine * frequency) - _X * _plane(sine * frequency)
                  + _plane(u[:, 3])) - _F(0.5)
    return np.clip(along * across * 12 + _F(0.5), 0, 1)


def spots(u: np.ndarray) -> np.ndarray:
    """A tilted grid of soft dots. u (n, 4)."""
    cosine, sine = cos_sin(u[:, 0])
    frequency = 1 / (4 + 4 * u[:, 1])
    along = _saw(_X * _plane(cosine * frequency) + _Y * _plane(sine * frequency)
                 + _plane(u[:, 2]))
    across = _saw(_Y * _plane(cosine * frequency) - _X * _plane(sine * frequency)
                  + _plane(u[:, 3]))
    return np.clip(_F(1.3) - 2 * np.sqrt(along * along + across * across), 0, 1)


def clouds(u: np.ndarray, cells: int) -> np.ndarray:
    """Numbers on a coarse grid, interpolated. u (n, (cells + 1)**2)."""
    grid = u.reshape(-1, cells + 1, cells + 1)
    at = (np.arange(SIZE, dtype=_F) + _F(0.5)) * _F(cells / SIZE)
    low = np.floor(at).astype(np.int64)
    weight = at - low.astype(_F)
    rows = grid[:, low] + (grid[:, low + 1] - grid[:, low]) * weight[:, None]
    return rows[:, :, low] + (rows[:, :, low + 1] - rows[:, :, low]) * weight


def background(u: Numbers) -> np.ndarray:
    """A texture in 0..1: one of four patterns, mixed with clouds."""
    kind, share, own = u.take(1)[:, 0], u.between(1, 0.3, 0.9), u.take(4)
    texture = clouds(u.take(49), 6)
    kind = np.floor(kind * 4)
    for k, pattern in enumerate((lambda v: stripes(v, (4.0, 12.0)), checks, spots)):
        chosen = kind == k
        texture[chosen] += (pattern(own[chosen]) - texture[chosen]) * _plane(share[chosen])
    return texture


def objects(u: Numbers, labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """(n, 32, 32): the distance to the object's edge in pixels, negative inside (near the edge
    exact, elsewhere of the right sign)."""
    radius, stretch = u.between(1, 7.0, 12.0)[:, 0], u.between(1, 0.9, 1.1)[:, 0]
    margin = radius * _F(0.85)
    centre = u.take(2)
    x0 = margin + (SIZE - 1 - 2 * margin) * centre[:, 0]
    y0 = margin + (SIZE - 1 - 2 * margin) * centre[:, 1]
    cosine, sine = cos_sin(u.between(1, 0.375, 0.625)[:, 0])
    across, down = _X - _plane(x0), _Y - _plane(y0)
    x = (across * _plane(cosine) + down * _plane(sine)) * _plane(stretch / radius)
    y = (down * _plane(cosine) - across * _plane(sine)) * _plane(1 / (stretch * radius))
    distance = np.empty_like(x)
    for k, name in enumerate(classes):
        chosen = labels == k
        distance[chosen] = OUTLINES[name](x[chosen], y[chosen])
    return distance * _plane(radius)


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - _F(width), np.abs(y) - _F(height))


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    slope = np.abs(x) * _F(0.8660254) + y * _F(0.5)
    return np.maximum(slope - _F(0.5), -y - _F(0.5))


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points: the plane folded along their axes until one edge is left."""
    x, y = np.abs(x), y.copy()
    for ax, ay in ((0.80901699, -0.58778525), (-0.80901699, -0.58778525)):
        beyond = 2 * np.maximum(x * _F(ax) + y * _F(ay), 0)
        x, y = x - beyond * _F(ax), y - beyond * _F(ay)
    # From the tip (0, 1) to the notch: the half angle of a tip is about 22 degrees.
    return (np.abs(x) * _F(0.927) + (y - 1) * _F(0.375))


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95))


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(_length(x, y) - _F(0.95), _F(0.8) - _length(x - _F(0.5), y))


def _corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(_box(x, y + _F(0.55), 0.85, 0.27), _box(x + _F(0.58), y, 0.27, 0.82))


def _hourglass(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    slope = (np.abs(x) - np.abs(y) * _F(0.9) - _F(0.08)) * _F(0.75)
    return np.maximum(np.abs(y) - _F(0.85), slope)


# Distance to the outline of each object in units of its radius, negative inside.
OUTLINES = {
    "disk": lambda x, y: _length(x, y) - _F(0.85),
    "ring": lambda x, y: np.abs(_length(x, y) - _F(0.72)) - _F(0.2),
    "square": lambda x, y: _box(x, y, 0.74, 0.74),
    "frame": lambda x, y: np.abs(_box(x, y, 0.62, 0.62)) - _F(0.17),
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "crescent": _crescent,
    "corner": _corner,
    "hourglass": _hourglass,
}


def clutter(u: Numbers, planes: list[np.ndarray]) -> None:
    """Draws one short line or dot of any colour over the planes, or (one time in four) none."""
    place, direction = u.take(2) * SIZE, u.take(1)[:, 0]
    length, width = u.between(1, 0.0, 4.0), u.between(1, 0.4, 1.0)
    colour, there = u.take(3), u.take(1)[:, 0] >= 0.25
    cosine, sine = cos_sin(direction)
    across, down = _X - _plane(place[:, 0]), _Y - _plane(place[:, 1])
    along = across * _plane(cosine) + down * _plane(sine)
    aside = down * _plane(cosine) - across * _plane(sine)
    beyond = np.maximum(np.abs(along) - _plane(length), 0)
    cover = np.clip(_plane(width) + _F(0.5) - _length(beyond, aside), 0, 1)
    cover *= _plane(there.astype(_F))
    for c, plane in enumerate(planes):
        plane += (_plane(colour[:, c]) - plane) * cover


def light(u: Numbers) -> np.ndarray:
    """(n, 32, 32): a factor around 1 that rises in one direction."""
    slope = u.between(2, -0.25, 0.25) / SIZE
    return 1 + (_X - _F(15.5)) * _plane(slope[:, 0]) + (_Y - _F(15.5)) * _plane(slope[:, 1])
