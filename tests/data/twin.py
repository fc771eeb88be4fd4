"""Slow twins of the C functions of the data layer, in plain Python and float64."""

import numpy as np

FILL, SHUFFLE, AUGMENT = 1, 3, 4


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as the paper's listing has it."""
    x, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(p1 >> 32) ^ x[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ x[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return x


def block(seed: int, stream: int, major: int, minor: int) -> list[int]:
    low = 0xFFFFFFFF
    return philox([minor & low, (minor >> 32) | stream << 24, major & low, major >> 32],
                  [seed & low, seed >> 32])


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    out = list(range(n))
    for step in range(n - 1):
        words = block(seed, SHUFFLE, epoch, step // 2)[step % 2 * 2:][:2]
        last = n - 1 - step
        other = (words[0] << 32 | words[1]) * (last + 1) >> 64
        out[last], out[other] = out[other], out[last]
    return np.array(out, np.int64)


def augment(images, indices, mean, std, padding, reflect, flip, alternate, cutout, seed, epoch):
    """float64; crops out of a really padded image."""
    h, w = images.shape[2:]
    out = np.empty((len(indices), *images.shape[1:]))
    for n, index in enumerate(indices):
        words = block(seed, AUGMENT, epoch, int(index))
        around = ((0, 0), (padding, padding), (padding, padding))
        padded = np.pad(images[index], around, mode="reflect") if reflect else \
            np.pad(images[index], around)
        y, x = (word * (2 * padding + 1) >> 32 for word in words[:2])
        image = padded[:, y:y + h, x:x + w]
        mirrored = words[2] / 2**32 < flip
        if alternate and flip:
            mirrored = block(seed, AUGMENT, 0, int(index))[2] / 2**32 < flip
            mirrored ^= epoch % 2 == 1
        if mirrored:
            image = image[:, :, ::-1]
        normal = (image / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
        top = ((words[3] >> 16) * h >> 16) - cutout // 2
        left = ((words[3] & 0xFFFF) * w >> 16) - cutout // 2
        if cutout:
            normal[:, max(top, 0):max(top + cutout, 0), max(left, 0):max(left + cutout, 0)] = 0
        out[n] = normal
    return out
