"""A random problem for the operations of ``attnnet.functional``, and for slices.

``PROBLEMS`` maps each name to a strategy of :class:`problem.Problem`. Batch norms and what they are
part of are in ``normalised.py``, the blocks in ``blocks.py``.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from reference import attention, ops
from reference.harness import distinct
from reference.harness import draw as values

from attnnet import functional as F

from .problem import CHANNELS, MOST, SEEDS, Problem

# ---- shapes ---------------------------------------------------------------------------------


@st.composite
def image_shapes(draw, least=1, empty=True, channels=CHANNELS, most=MOST, side=40):
    """(N, C, H, W); ``least`` bounds H and W from below. Squares as networks have them, and any."""
    n = draw(st.sampled_from([1, 1, 2, 2, 3, 5] + [0] * empty))
    c = draw(channels)
    square = [s for s in (1, 2, 4, 8, 16) if least <= s <= side and n * c * s * s <= most]
    if square and draw(st.integers(0, 2)) == 0:
        return n, c, *[draw(st.sampled_from(square))] * 2
    height = draw(st.one_of(st.integers(least, 9), st.integers(least, side)))
    room = max(least, min(side, most // max(1, n * c * height)))
    return n, c, height, draw(st.one_of(st.integers(least, min(9, room)), st.integers(least, room)))


@st.composite
def shapes(draw, least=0, empty=True, ndim=5):
    """Of any number of dimensions: small ones, images, one long row."""
    kind = draw(st.sampled_from(["small", "small", "image", "row"]))
    if kind == "image":
        return draw(image_shapes(empty=empty))
    if kind == "row":
        return (*draw(st.sampled_from([(), (1,), (3,)])), draw(st.integers(1, 6000)))
    sizes = st.integers(0 if empty and draw(st.integers(0, 4)) == 0 else 1, 6)
    return tuple(draw(st.lists(sizes, min_size=least, max_size=ndim)))


@st.composite
def axes(draw, ndim: int):
    """One axis, several or all, from either end."""
    if ndim == 0 or draw(st.integers(0, 3)) == 0:
        return None
    chosen = draw(st.lists(st.integers(0, ndim - 1), min_size=1, max_size=ndim, unique=True))
    chosen = [a - ndim * draw(st.booleans()) for a in chosen]
    return chosen[0] if len(chosen) == 1 and draw(st.booleans()) else tuple(chosen)


def reduced(shape, dim) -> int:
    """How many elements go into one."""
    every = range(len(shape)) if dim is None else np.atleast_1d(dim)
    return int(np.prod([shape[a] for a in every], dtype=np.int64))


def pairs(low, high):
    """One number for both axes, or two."""
    one = st.integers(low, high)
    return st.one_of(one, st.tuples(one, one))


def both(value) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


# ---- elementwise ----------------------------------------------------------------------------

UNARY = {
    "relu": distinct,
    "sigmoid": lambda seed, *s: values(seed, *s) * 4,
    "tanh": lambda seed, *s: values(seed, *s) * 2,
    "exp": values,
    "log": lambda seed, *s: values(seed, *s, low=0.1, high=5),
    "sqrt": lambda seed, *s: values(seed, *s, low=0.1, high=5),
    "abs": distinct,
}


def unary(name):
    @st.composite
    def problem(draw):
        x = UNARY[name](draw(SEEDS), *draw(shapes()))
        # theirs is made of y, and small where y is nearly 1
        scales = [1.0] if name in ("sigmoid", "tanh") else None
        return Problem(getattr(F, name), getattr(ops, name), [x], length=4, scales=scales)

    return problem()


@st.composite
def clamp(draw):
    low, high = sorted(draw(st.tuples(*[st.floats(-2, 2, width=32)] * 2)))
    bounds = draw(st.sampled_from([{"min": low}, {"max": high}, {"min": low, "max": high}]))
    x = distinct(draw(SEEDS), *draw(shapes()))
    # between two values that occur, for those are multiples of 1/256 of odd numerator
    bounds = {k: round(v * 128) / 128 for k, v in bounds.items()}
    return Problem(lambda t: F.clamp(t, **bounds), lambda a: ops.clamp(a, **bounds), [x],
                   note=str(bounds))  # fmt: skip


BINARY = {
    "add": (values, values),
    "sub": (values, values),
    "mul": (values, values),
    "div": (values, lambda seed, *s: values(seed, *s, low=0.5, high=2)),
    "pow": (lambda seed, *s: values(seed, *s, low=0.5, high=2), values),
}


@st.composite
def broadcast(draw, whole):
    """A shape that broadcasts to ``whole``: some sizes 1, some leading ones left out."""
    shape = [1 if draw(st.integers(0, 3)) == 0 else n for n in whole]
    return tuple(shape[draw(st.sampled_from([0, 0, 0, 1, 2])) :])


def binary(name):
    @st.composite
    def problem(draw):
        whole = draw(shapes())
        given = [draw(broadcast(whole)) for _ in range(2)]
        arrays = [make(draw(SEEDS), *s) for make, s in zip(BINARY[name], given, strict=True)]
        size = int(np.prod(np.broadcast_shapes(*given)))
        lengths = [max(1, size // max(1, a.size)) + 4 for a in arrays]
        return Problem(getattr(F, name), getattr(ops, name), arrays, length=4, lengths=lengths,
                       scales=[float(np.sqrt(n)) for n in lengths])  # fmt: skip

    return problem()


# ---- products, reductions, losses -----------------------------------------------------------

WIDTHS = st.one_of(st.integers(1, 20), st.integers(1, 130))


@st.composite
def matmul(draw):
    m, k, n = (draw(st.one_of(st.just(0), WIDTHS) if draw(st.integers(0, 9)) == 0 else WIDTHS)
               for _ in range(3))  # fmt: skip
    lead = draw(st.lists(st.integers(1, 4), max_size=2))
    a, b = (draw(broadcast(lead)) if lead else () for _ in range(2))
    arrays = [values(draw(SEEDS), *a, m, k), values(draw(SEEDS), *b, k, n)]
    times = max(1, int(np.prod(lead)))
    return Problem(F.matmul, ops.matmul, arrays, length=max(k, 1),
                   lengths=[n * times, m * times], scale=np.sqrt(k),
                   scales=[np.sqrt(n), np.sqrt(m)])  # fmt: skip


@st.composite
def linear(draw):
    rows = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3))
    inner, out = draw(WIDTHS), draw(WIDTHS)
    arrays = [values(draw(SEEDS), *rows, inner), values(draw(SEEDS), out, inner)]
    if draw(st.booleans()):
        arrays.append(values(draw(SEEDS), out))
    count = max(1, int(np.prod(rows)))
    few = len(arrays)
    return Problem(F.linear, ops.linear, arrays, length=inner, scale=np.sqrt(inner),
                   lengths=[out, count, count][:few],
                   scales=[np.sqrt(out), np.sqrt(count), np.sqrt(count)][:few])  # fmt: skip


def reduction(name):
    @st.composite
    def problem(draw):
        shape = draw(shapes())
        dim, keepdim = draw(axes(len(shape))), draw(st.booleans())
        count = reduced(shape, dim)
        options = {}
        if name == "var":
            shape = (*shape, 3) if count < 2 else shape  # of at least two values
            dim = (len(shape) - 1) if count < 2 else dim
            count = reduced(shape, dim)
            options["correction"] = draw(st.integers(0, 1))
        if name in ("amax", "amin"):
            if count == 0:
                shape = tuple(max(1, n) for n in shape)
            x = distinct(draw(SEEDS), *shape)
        else:
            x = values(draw(SEEDS), *shape)
        scale = {"sum": np.sqrt(count), "mean": 1 / np.sqrt(max(count, 1))}.get(name, 0.0)
        if name == "mean" and count == 0:
            shape = tuple(max(1, n) for n in shape)  # 0/0 is NaN, and NumPy warns of it
            x, count = values(draw(SEEDS), *shape), reduced(shape, dim)
        return Problem(
            lambda t: getattr(F, name)(t, dim, keepdim=keepdim, **options),
            lambda a: getattr(ops, name)(a, dim, keepdim=keepdim, **options),
            [x], length=max(1, count), scale=scale, scales=[scale],
            note=f"dim {dim}, keepdim {keepdim}, {options}",
        )  # fmt: skip

    return problem()


def soft(name):
    @st.composite
    def problem(draw):
        shape = draw(shapes(least=1).filter(lambda s: len(s) > 0))
        dim = draw(st.integers(-len(shape), len(shape) - 1))
        x = values(draw(SEEDS), *shape) * draw(st.sampled_from([1, 4]))
        return Problem(
            lambda t: getattr(F, name)(t, dim), lambda a: getattr(ops, name)(a, dim), [x],
            length=max(1, shape[dim]), scales=[1.0], note=f"dim {dim}",
        )  # fmt: skip

    return problem()


@st.composite
def cross_entropy(draw):
    count, classes = draw(st.integers(1, 40)), draw(st.integers(1, 120))
    smoothing = draw(st.sampled_from([0.0, 0.1, 1.0]))
    target = np.random.default_rng(draw(SEEDS)).integers(0, classes, count)
    target = target.astype(draw(st.sampled_from(["i8", "i4", "u1"])))
    logits = values(draw(SEEDS), count, classes) * 3
    return Problem(
        lambda t: F.cross_entropy(t, target, smoothing),
        lambda a: ops.cross_entropy(a, target, smoothing),
        [logits], length=count + classes, scale=1.0, scales=[1 / count],
        note=f"label_smoothing {smoothing}",
    )  # fmt: skip


# ---- shapes ---------------------------------------------------------------------------------


@st.composite
def reshape(draw):
    shape = draw(shapes())
    rest, sizes = int(np.prod(shape)), []
    for _ in range(draw(st.integers(0, 4))):
        divisors = [d for d in range(1, min(rest, 64) + 1) if rest % d == 0]
        sizes.append(draw(st.sampled_from(divisors or [0])))
        rest //= max(1, sizes[-1])
    sizes.append(rest)
    if 0 not in sizes and draw(st.booleans()):
        sizes[draw(st.integers(0, len(sizes) - 1))] = -1
    return Problem(lambda t: F.reshape(t, sizes), lambda a: ops.reshape(a, sizes),
                   [values(draw(SEEDS), *shape)], note=str(sizes))  # fmt: skip


@st.composite
def flatten(draw):
    shape = draw(shapes(least=1).filter(lambda s: len(s) > 0))
    start = draw(st.integers(-len(shape), len(shape) - 1))
    return Problem(lambda t: F.flatten(t, start), lambda a: ops.flatten(a, start % len(shape)),
                   [values(draw(SEEDS), *shape)], note=str(start))  # fmt: skip


@st.composite
def permute(draw):
    shape = draw(shapes())
    dims = [d - len(shape) * draw(st.booleans()) for d in draw(st.permutations(range(len(shape))))]
    return Problem(lambda t: F.permute(t, dims), lambda a: ops.permute(a, dims),
                   [values(draw(SEEDS), *shape)], note=str(dims))  # fmt: skip


@st.composite
def cat(draw):
    shape = list(draw(shapes(least=1, ndim=4).filter(lambda s: len(s) > 0)))
    dim = draw(st.integers(0, len(shape) - 1))
    sizes = draw(st.lists(CHANNELS if dim == 1 else st.integers(0, 9), min_size=1, max_size=4))
    arrays = [values(draw(SEEDS), *shape[:dim], n, *shape[dim + 1 :]) for n in sizes]
    dim -= len(shape) * draw(st.booleans())
    return Problem(lambda *t: F.cat(t, dim), lambda *a: ops.cat(a, dim), arrays, note=f"dim {dim}")


@st.composite
def split(draw):
    """The parts are joined again in reverse, so that each one's gradient counts."""
    shape = draw(shapes(least=1, empty=False).filter(lambda s: len(s) > 0))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    length = shape[dim]
    if draw(st.booleans()):
        sections = draw(st.integers(-(-length // 64), length + 1))  # cat takes 64 at most
    else:
        ends = sorted(draw(st.lists(st.integers(0, length), max_size=3)))
        sections = [b - a for a, b in zip([0, *ends], [*ends, length], strict=True)]

    def twin(a):
        parts, backward = ops.split(a, sections, dim)
        y, back = ops.cat(parts[::-1], dim % len(shape))
        return y, lambda dy: backward(back(dy)[::-1])

    return Problem(lambda t: F.cat(F.split(t, sections, dim)[::-1], dim), twin,
                   [values(draw(SEEDS), *shape)], note=f"{sections} along {dim}")  # fmt: skip


@st.composite
def pad(draw):
    shape = draw(shapes(least=2, ndim=4).filter(lambda s: len(s) >= 2))
    sides = draw(st.tuples(*[st.integers(0, 4)] * 4))
    value = draw(st.sampled_from([0.0, 0.5, -3.0]))
    return Problem(lambda t: F.pad(t, sides, value), lambda a: ops.pad(a, sides, value),
                   [values(draw(SEEDS), *shape)], note=f"{sides}, {value}")  # fmt: skip


@st.composite
def getitem(draw):
    shape = draw(shapes())
    key = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        step = st.sampled_from([None, 1, 2, 3, -1, -2])
        edge = st.one_of(st.none(), st.integers(-n - 1, n + 1))
        slices = st.builds(slice, edge, edge, step)
        key.append(draw(st.one_of(slices, st.integers(-n, n - 1)) if n else slices))
    at = draw(st.integers(0, len(key)))
    key[at:at] = draw(st.sampled_from([[], [None], [...]]))
    if ... in key:  # what stands behind it counts from the last axis on
        key = key[: at + 1]
    key = tuple(key)
    return Problem(lambda t: t[key], lambda a: ops.getitem(a, key), [values(draw(SEEDS), *shape)],
                   note=str(key))  # fmt: skip


@st.composite
def dropout(draw):
    """The map is read from the result itself; where nothing was drawn to 0 it is exact."""
    x, p = distinct(draw(SEEDS), *draw(shapes())), draw(st.sampled_from([0.1, 0.5, 0.9]))
    kept = {}

    def ours(t):
        y = F.dropout(t, p)
        kept["map"] = y.detach().numpy() != 0
        return y

    def twin(a):
        factor = kept.get("map", np.ones(a.shape, bool)) / np.float64(1 - p)
        return a * factor, lambda dy: (dy * factor,)

    return Problem(ours, twin, [x], length=4, note=f"p {p}")


# ---- images ---------------------------------------------------------------------------------


@st.composite
def kernels(draw, most=7):
    """Kernel, stride, padding: the usual ones, and any."""
    usual = [((3, 3), 1, 1), ((3, 3), 2, 1), ((1, 1), 1, 0), ((1, 1), 2, 0), ((7, 7), 1, 3),
             ((7, 7), 3, 0), ((5, 5), 1, 2)]  # fmt: skip
    if draw(st.booleans()):
        return draw(st.sampled_from(usual))
    kernel = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    return kernel, draw(pairs(1, 3)), draw(pairs(0, 3))


@st.composite
def convolutions(draw, empty=True):
    """Shapes (of x, of the weight), stride, padding, groups."""
    kernel, stride, padding = draw(kernels())
    groups = draw(st.sampled_from([1, 1, 1, 1, 2, 3, 16]))
    few = CHANNELS if groups == 1 else st.integers(1, 9)
    c, k = draw(few) * groups, draw(few) * groups
    work = 3e7 / (c * k / groups * kernel[0] * kernel[1])  # places: the twin takes its time
    least = max(1, *(s - 2 * p for s, p in zip(kernel, both(padding), strict=True)))
    shape = draw(image_shapes(least, empty, st.just(c), int(min(MOST, work * c))))
    return shape, (k, c // groups, *kernel), stride, padding, groups


def convolution_rounding(x, w, y, groups):
    """(length, lengths, scales) of a convolution's output and its gradients."""
    places = max(1, y[0] * y[2] * y[3])
    taps = w[0] // groups * w[2] * w[3]
    return int(np.prod(w[1:])), [taps, places, places], [1.0, np.sqrt(places), np.sqrt(places)]


@st.composite
def conv2d(draw):
    x, w, stride, padding, groups = draw(convolutions())
    arrays = [values(draw(SEEDS), *x), values(draw(SEEDS), *w) / np.sqrt(np.prod(w[1:]))]
    if draw(st.booleans()):
        arrays.append(values(draw(SEEDS), w[0]))
    y, _ = ops.conv2d(np.zeros(x), np.zeros(w), None, stride, padding, groups)
    length, lengths, scales = convolution_rounding(x, w, y.shape, groups)
    few = len(arrays)
    return Problem(
        lambda x, w, b=None: F.conv2d(x, w, b, stride, padding, groups),
        lambda x, w, b=None: ops.conv2d(x, w, b, stride, padding, groups),
        arrays, length=length, scale=1.0, lengths=lengths[:few], scales=scales[:few],
        note=f"stride {stride}, padding {padding}, groups {groups}",
    )  # fmt: skip


def pool(name):
    @st.composite
    def problem(draw):
        window = draw(pairs(1, 5))
        kernel = both(window)
        stride = draw(st.one_of(st.none(), pairs(1, 4)))
        most = min(kernel) // 2
        padding = draw(pairs(0, most))
        least = max(1, *(s - 2 * p for s, p in zip(kernel, both(padding), strict=True)))
        shape = draw(image_shapes(least))
        options = {}
        if name == "avg_pool2d":
            options["count_include_pad"] = draw(st.booleans())
            x = values(draw(SEEDS), *shape)
        else:
            x = distinct(draw(SEEDS), *shape)
        return Problem(
            lambda t: getattr(F, name)(t, window, stride, padding, **options),
            lambda a: getattr(ops, name)(a, window, stride, padding, **options),
            [x], length=kernel[0] * kernel[1], scales=[1.0], scale=0.5,
            note=f"window {window}, stride {stride}, padding {padding}, {options}",
        )  # fmt: skip

    return problem()


def adaptive(name):
    @st.composite
    def problem(draw):
        shape = draw(image_shapes(most=20_000))
        size = draw(pairs(1, 9))
        make = distinct if "max" in name else values
        return Problem(
            lambda t: getattr(F, name)(t, size), lambda a: getattr(ops, name)(a, size),
            [make(draw(SEEDS), *shape)], length=shape[2] * shape[3], scale=0.1, scales=[1.0],
            note=str(size),
        )  # fmt: skip

    return problem()


@st.composite
def relative_attention(draw):
    heads, d, e = draw(st.integers(1, 8)), draw(st.integers(1, 24)), draw(st.integers(1, 16))
    n, height = draw(st.sampled_from([1, 1, 2, 0])), draw(st.integers(1, 12))
    width = draw(st.integers(1, max(1, min(40, 150 // height))))
    original = draw(st.booleans())
    rng = np.random.default_rng(draw(SEEDS))
    arrays = [values(rng, n, heads * (2 * d + e), height, width), values(rng, 2 * height - 1, d),
              values(rng, 2 * width - 1, d)]  # fmt: skip

    def twin(kqv, rel_h, rel_w):
        (k, q, v), join = attention.split_kqv(kqv, heads * e)
        form = "original" if original else "paper"
        y, backward = attention.attention(q, k, v, rel_h, rel_w, form, heads)

        def gradients(dy):
            dq, dk, dv, drel_h, drel_w = backward(dy)
            return join(dk, dq, dv), drel_h, drel_w

        return y, gradients

    # as tests/blocks/test_attention_augmented.py has it
    score, places = d * (1 + 2 * heads if original else 3), height * width
    rows = score + max(1, n) * places
    return Problem(
        lambda *t: F.relative_attention(*t, heads, heads * d, heads * e, original),
        twin, arrays, length=score + places, lengths=[score + e + places, rows, rows],
        # a table of a single row has no gradient: its terms cancel
        scale=0.5, scales=[1.0, *[np.sqrt(max(1, n) * places * heads)] * 2],
        note=f"{heads} heads of {d} and {e}, original {original}",
    )  # fmt: skip


PROBLEMS = {
    **{name: unary(name) for name in UNARY},
    "clamp": clamp(),
    **{name: binary(name) for name in BINARY},
    "matmul": matmul(),
    "linear": linear(),
    **{name: reduction(name) for name in ("sum", "mean", "var", "amax", "amin")},
    "softmax": soft("softmax"),
    "log_softmax": soft("log_softmax"),
    "cross_entropy": cross_entropy(),
    "reshape": reshape(),
    "flatten": flatten(),
    "permute": permute(),
    "cat": cat(),
    "split": split(),
    "pad": pad(),
    "getitem": getitem(),
    "dropout": dropout(),
    "conv2d": conv2d(),
    **{name: pool(name) for name in ("max_pool2d", "avg_pool2d")},
    **{name: adaptive(name) for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d")},
    "relative_attention": relative_attention(),
}
