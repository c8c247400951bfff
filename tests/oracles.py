"""The merge methods once more, on dense float64 matrices and with NumPy alone: what the papers say, slowly.

Nothing here is shared with loreg. ``weights`` multiply deltas; every function takes (deltas, weights, options).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.linalg import norm, qr, svd
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
TINY = 1e-10


def linear(deltas: list[Matrix], weights: list[float]) -> Matrix:
    return sum(w * d for w, d in zip(weights, deltas, strict=True))


def best_of_rank(matrix: Matrix, rank: int) -> Matrix:
    u, s, vh = svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vh[:rank]


def slerp(deltas, weights):
    x, y = deltas
    t = weights[1] / sum(weights)
    angle = np.arccos((x * y).sum() / (norm(x) * norm(y)))
    return (np.sin((1 - t) * angle) * x + np.sin(t * angle) * y) / np.sin(angle)


def karcher(deltas, weights, iterations=10, tolerance=1e-5):
    """On the sphere itself: move along the mean of the tangents that point to the unit deltas."""
    shares = np.array(weights) / sum(weights)
    units = [d / norm(d) for d in deltas]
    mean = linear(units, shares)
    mean /= norm(mean)
    for _ in range(iterations):
        tangent = np.zeros_like(mean)
        for share, unit in zip(shares, units, strict=True):
            cosine = np.clip((mean * unit).sum(), -1, 1)
            angle = np.arccos(cosine)
            if angle > 1e-8:
                tangent += share * angle / np.sin(angle) * (unit - cosine * mean)
        step = norm(tangent)
        if step <= tolerance:
            break
        mean = np.cos(step) * mean + np.sin(step) * tangent / step
    return mean / norm(mean) * sum(s * norm(d) for s, d in zip(shares, deltas, strict=True))


def model_stock(deltas, weights):
    count = len(deltas)
    cosines = [(x * y).sum() / (norm(x) * norm(y)) for i, x in enumerate(deltas) for j, y in enumerate(deltas) if i < j]
    cosine = float(np.clip(np.mean(cosines), 0, 1))
    share = count * cosine / (1 + (count - 1) * cosine)
    return share * linear(deltas, np.array(weights) / sum(weights))


def top(matrix: Matrix, count: int) -> Matrix:
    """The ``count`` entries of largest magnitude, zeros elsewhere."""
    order = np.argsort(-np.abs(matrix), axis=None, kind="stable")
    kept = np.zeros(matrix.size)
    kept[order[:count]] = matrix.flatten()[order[:count]]
    return kept.reshape(matrix.shape)


def elect(kept, weights, elect="mass", sign="weighted", mean="weight"):
    """TIES after trimming, one entry at a time."""
    merged = np.zeros_like(kept[0])
    for place in np.ndindex(merged.shape):
        entries = [(k[place], w) for k, w in zip(kept, weights, strict=True)]
        votes = [w * x if sign == "weighted" else x for x, w in entries]
        score = sum(votes) if elect == "mass" else sum(np.sign(votes))
        winner = 1.0 if score >= 0 else -1.0
        agreeing = [(x, w) for (x, w), vote in zip(entries, votes, strict=True) if vote * winner > 0]
        if agreeing:
            total = sum(w * x for x, w in agreeing)
            divisor = {"weight": sum(abs(w) for _, w in agreeing), "count": len(agreeing), "none": 1}[mean]
            merged[place] = total / divisor
    return merged


def magnitude_prune(deltas, weights, density=0.5):
    return linear([top(d, int(density * d.size)) for d in deltas], weights)


def ties(deltas, weights, density=0.2, **rules):
    return elect([top(d, int(density * d.size)) for d in deltas], weights, **rules)


def breadcrumbs(deltas, weights, density=0.9, gamma=0.01):
    def kept(d):
        keep = int(density * d.size)
        outliers = min(int(gamma * d.size), d.size - keep)
        return top(d, outliers + keep) - top(d, outliers)

    return linear([kept(d) for d in deltas], weights)


def uniform(shape, digest: str, module: str, seed: int) -> Matrix:
    """The numbers in [0, 1) that decide which entries are drawn: the documented hash, in Python's integers."""
    key = int.from_bytes(hashlib.sha256(f"{digest}\0{module}\0{seed}".encode()).digest()[:8], "little")
    low, high = key & 0xFFFFFFFF, key >> 32

    def mix(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D & 0xFFFFFFFF
        x ^= x >> 15
        x = x * 0x846CA68B & 0xFFFFFFFF
        return x ^ x >> 16

    columns = [mix(c ^ high) for c in range(shape[1])]
    numbers = [[mix(mix(r ^ low) ^ c) for c in columns] for r in range(shape[0])]
    return ((np.array(numbers, dtype=np.int64) ^ 0x80000000) & 0xFFFFFFFF) / 2**32


def dare(deltas, digests, module, density=0.5, seed=0):
    masks = [uniform(d.shape, digest, module, seed) < density for d, digest in zip(deltas, digests, strict=True)]
    return [d * mask / density for d, mask in zip(deltas, masks, strict=True)]


def della(deltas, digests, module, density=0.5, epsilon=0.15, seed=0):
    kept = []
    for d, digest in zip(deltas, digests, strict=True):
        ranks = np.argsort(np.argsort(np.abs(d), axis=1, kind="stable"), axis=1, kind="stable")
        probability = density - epsilon / 2 + epsilon * ranks / (d.shape[1] - 1)
        kept.append(np.where(uniform(d.shape, digest, module, seed) < probability, d / probability, 0.0))
    return kept


def knots_ties(deltas, weights, density=0.2):
    """One module: with several, the threshold is over all of them."""
    u, s, vh = svd(np.concatenate(deltas, axis=1), full_matrices=False)
    rank = int((s > TINY * s[0]).sum())
    aligned = np.split(s[:rank, None] * vh[:rank], len(deltas), axis=1)
    size = len(s) if len(s) < sum(int((svd(d)[1] > TINY).sum()) for d in deltas) else rank
    kept = [top(x, int(density * size * x.shape[1])) for x in aligned]
    return u[:, :rank] @ elect(kept, weights)


def bases(deltas):
    """Left and right singular vectors of the balanced canonical factors of all deltas, side by side."""
    left, right = [], []
    for delta in deltas:
        u, s, vh = svd(delta, full_matrices=False)
        rank = int((s > TINY * s[0]).sum())
        left.append(u[:, :rank] * np.sqrt(s[:rank]))
        right.append(vh[:rank].T * np.sqrt(s[:rank]))
    sides = []
    for columns in (np.concatenate(left, axis=1), np.concatenate(right, axis=1)):
        u, s, _ = svd(columns, full_matrices=False)
        sides.append(u[:, s > TINY * s[0]])
    return sides


def core_ties(deltas, weights, density=0.2):
    left, right = bases(deltas)
    cores = [left.T @ d @ right for d in deltas]
    return left @ elect([top(c, int(density * c.size)) for c in cores], weights) @ right.T


def tucker(deltas, rank):
    """Shared subspaces by alternating eigenproblems, from the singular vectors of the unfoldings."""
    scale = np.mean([norm(d) for d in deltas])
    balanced = [d * scale / norm(d) for d in deltas]

    def leading(matrices):
        values, vectors = np.linalg.eigh(sum(m @ m.T for m in matrices))
        return vectors[:, np.argsort(-values)[:rank]]

    u, v = leading(balanced), leading([d.T for d in balanced])
    for _ in range(2000):
        u = leading([d @ v for d in balanced])
        v = leading([d.T @ u for d in balanced])
    return u, v, sum(norm(u.T @ d @ v) ** 2 for d in balanced)


def polar(x):
    u, s, vh = svd(x, full_matrices=False)
    keep = s > TINY * s[0]
    return u[:, keep] @ vh[keep]


def real_directions(matrix, keep=None):
    u, s, vh = svd(matrix, full_matrices=False)
    rank = min(int((s > TINY * max(s[0], 1e-30)).sum()), keep if keep is not None else len(s))
    return u[:, :rank], s[:rank], vh[:rank].T


def tsv(deltas, weights):
    parts = [real_directions(w * d) for w, d in zip(weights, deltas, strict=True)]
    u, v = (polar(np.concatenate([part[side] for part in parts], axis=1)) for side in (0, 2))
    return u * np.concatenate([part[1] for part in parts]) @ v.T


def iso(deltas, weights):
    u, s, v = real_directions(linear(deltas, weights))
    return s.mean() * u @ v.T


def iso_cts(deltas, weights, size, common=0.8):
    """``size`` is the number of directions there are: the sum of the ranks."""
    own = round((size - int(size * common)) / len(deltas))
    u, s, v = real_directions(linear(deltas, weights), size - own * len(deltas))
    parts = [(u, s, v)]
    for weight, delta in zip(weights, deltas, strict=True):
        parts.append(real_directions(weight * (delta - u @ (u.T @ delta)), own))
    left, right = (polar(np.concatenate([part[side] for part in parts], axis=1)) for side in (0, 2))
    return np.concatenate([part[1] for part in parts]).mean() * left @ right.T


def svc(deltas, weights, alpha=1.0):
    u, s, v = real_directions(linear(deltas, weights))
    calibrated = []
    for i, sigma in enumerate(s):
        times = []
        for delta in deltas:
            response = u[:, i] @ delta
            times.append(max(alpha, sigma * (v[:, i] @ response) / (response @ response)))
        calibrated.append(sigma * len(deltas) / sum(times))
    return u * np.array(calibrated) @ v.T


def regmean(deltas, weights, inputs, shrinkage=0.1):
    """Least squares over the stacked outputs; ``inputs`` has what each task feeds the layer, (in, count)."""
    rows = real_directions(np.concatenate([d / max(norm(d), TINY) for d in deltas]))[2]  # orthonormal, (in, p)
    equations, outputs = [], []
    for delta, x, weight in zip(deltas, inputs, weights, strict=True):
        y = rows.T @ x / np.sqrt(x.shape[1])
        # to shrink the moments is to see as much again of every direction alike
        shrunk = [np.sqrt(1 - shrinkage) * y, np.sqrt(shrinkage * norm(y) ** 2 / len(y)) * np.eye(len(y))]
        seen = np.sqrt(weight) * np.concatenate(shrunk, axis=1)
        equations.append(seen.T)
        outputs.append((delta @ rows @ seen).T)
    solution = np.linalg.lstsq(np.concatenate(equations), np.concatenate(outputs))[0]
    return solution.T @ rows.T


def wudi(deltas, weights, ridge=0.01):
    """Where the gradient of the paper's objective, and of a small pull to zero, vanishes."""
    shares = np.array(weights) / np.mean(weights)
    grams = [s * d.T @ d / norm(d) ** 2 for s, d in zip(shares, deltas, strict=True)]
    numerator = sum(d @ g for d, g in zip(deltas, grams, strict=True))
    return np.linalg.solve(sum(grams) + ridge * np.eye(len(grams[0])), numerator.T).T


def low_rank(out: int, in_: int, rank: int, seed: int) -> Matrix:
    generator = np.random.default_rng(seed)
    q = qr(generator.normal(size=(out, rank)))[0]
    return q @ generator.normal(size=(rank, in_))
