"""The structures that blocks of one size have: those whose words are of another nature in several places.

In: letters of the sampled blocks of one class. Out: a `Profile` for each structure, or none where all blocks are alike.

A word that nothing was written to holds whatever lay there, a stale pointer or a list link of the allocator: its
letters vary from block to block. Two structures differ in several words at once. So signatures (the letters of a block)
are put to the nearest profile, profiles are made of them, and two profiles become one unless they differ clearly: a
word in which each of them varies by itself does not count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.clusters.letters import LETTERS, NEUTRAL, POINTERS, Letter, Letters

Profile = NDArray[np.float64]
"""(structures, words, letters): the share of each letter in each word; neutral letters count as `Letter.ZERO`."""

_MOST_SEEDS, _ROUNDS = 8, 4
_FAR = 0.3
"""Mean conflict of the words of two structures, at least."""

_WORDS_APART = 1.15
"""The least sum of conflicts that separates two structures: pointers to other blocks in two words, for example."""

_PLAIN_APART = 0.9
"""Conflict of one word that alone separates two structures: nearly always a pointer in one, a number in the other."""

_LEAST_SHARE, _LEAST = 0.02, 3
_TIE = 1e-6
"""Weight of the likelihood where blocks are equally far from two structures, as leaves of a tree can be."""

_ABSENCE = 0.3
"""Weight of a word in which nothing stands."""

_DATA = (Letter.NUMBER, Letter.FLOAT, Letter.TEXT, Letter.TIME)


def _conflicts() -> NDArray[np.float64]:
    """(letters, letters): how surely two letters in one word mean two structures, 0 to 1."""
    out = np.zeros((LETTERS, LETTERS))

    def put(first: Letter, second: Letter, value: float) -> None:
        """Both ways."""
        out[first, second] = out[second, first] = value

    for pointer in POINTERS:
        for letter in _DATA:
            put(pointer, letter, 1.0)
        put(pointer, Letter.OTHER, 0.8)
        put(pointer, Letter.MODULE, 1.0)
    for first in POINTERS:
        for second in POINTERS:
            if first < second:
                put(first, second, 0.4 if Letter.POINTER in (first, second) else 0.7)
    for letter in _DATA:
        put(Letter.MODULE, letter, 1.0)
        put(Letter.STALE, letter, 0.5)
        put(letter, Letter.OTHER, 0.3)
        for other in _DATA:
            if letter < other:
                put(letter, other, 0.6)
    put(Letter.MODULE, Letter.OTHER, 0.8)
    put(Letter.MODULE, Letter.STALE, 0.7)
    put(Letter.STALE, Letter.OTHER, 0.3)
    return out


CONFLICT = _conflicts()
_IS_NEUTRAL = np.isin(np.arange(LETTERS), NEUTRAL)


def may_differ(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for classes that can hold several structures; (m,) bool. `counts` (m, words, letters): of each word.

    Where no word has two letters in conflict that are common, the blocks are alike.
    """
    total = counts[:, :, :].sum(axis=2, keepdims=True)
    common = (counts >= np.maximum(_LEAST, _LEAST_SHARE * total)) & ~_IS_NEUTRAL
    common_float = common.astype(np.float64)
    conflict = np.einsum("mwa,ab,mwb->mw", common_float, CONFLICT, common_float)
    found: NDArray[np.bool_] = (conflict > 0).any(axis=1)
    return found


def split(letters: Letters) -> Profile | None:
    """The structures of some blocks; None for one. `letters` (n, words) uint8. O(distinct signatures) after a sort."""
    signatures, inverse = np.unique(letters, axis=0, return_inverse=True)
    counts = np.bincount(inverse.reshape(-1)).astype(np.float64)
    seeds = _seeds(signatures, counts)
    if len(seeds) < 2:
        return None
    seed_profile = _profiles(np.stack(seeds), np.ones(len(seeds)), np.arange(len(seeds)))
    distance = np.stack([_distance(signatures, seed) for seed in seeds], axis=1)
    group = np.argmin(distance - _TIE * likelihood(seed_profile, signatures), axis=1)
    group = np.unique(group, return_inverse=True)[1].reshape(-1)
    for _ in range(_ROUNDS):
        profile = _profiles(signatures, counts, group)
        group = np.argmax(likelihood(profile, signatures), axis=1)
        group = np.unique(group, return_inverse=True)[1].reshape(-1)
    group = _merged(signatures, counts, group)
    return _profiles(signatures, counts, group) if group.max() > 0 else None


def join(letters: Letters, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """(groups,) a number for each group of blocks, the same for groups that do not differ clearly.

    `letters` (n, words) uint8; `group` (n,): of each block, from 0 without gaps.
    """
    keys = np.concatenate([letters, group[:, None].astype(np.uint8)], axis=1)
    signatures, counts = np.unique(keys, axis=0, return_counts=True)
    old = signatures[:, -1].astype(np.int64)
    joined = _merged(np.ascontiguousarray(signatures[:, :-1]), counts.astype(np.float64), old)
    out = np.zeros(int(group.max(initial=-1)) + 1, np.int64)
    out[old] = joined
    return out


def likelihood(profile: Profile, letters: Letters) -> NDArray[np.float64]:
    """(n, structures): log likelihood of blocks, (n, words) uint8."""
    logs = np.log(profile + 0.02)
    logs[:, :, Letter.ZERO] *= _ABSENCE
    folded = np.where(_IS_NEUTRAL[letters], np.uint8(Letter.ZERO), letters)
    out = np.zeros((len(letters), len(profile)))
    for word in range(letters.shape[1]):
        out += logs[:, word, :].T[folded[:, word]]
    return out


def _distance(signatures: Letters, seed: Letters) -> NDArray[np.float64]:
    """Mean conflict of each signature with one, over the words where both say something; (n,)."""
    says = ~_IS_NEUTRAL[signatures] & ~_IS_NEUTRAL[seed]
    total: NDArray[np.float64] = (CONFLICT[signatures, seed] * says).sum(axis=1) / np.maximum(says.sum(axis=1), 1)
    return total


def _seeds(signatures: Letters, counts: NDArray[np.float64]) -> list[Letters]:
    """Common signatures that are far from each other, the most common first."""
    seeds = [signatures[np.argmax(counts)]]
    nearest = _distance(signatures, seeds[0])
    while len(seeds) < _MOST_SEEDS:
        weight = np.where(nearest >= _FAR, counts * nearest, 0)
        if weight.max() <= 0:
            break
        seeds.append(signatures[np.argmax(weight)])
        nearest = np.minimum(nearest, _distance(signatures, seeds[-1]))
    return seeds


def _profiles(signatures: Letters, counts: NDArray[np.float64], group: NDArray[np.int64]) -> Profile:
    """The profile of each group."""
    groups, words = int(group.max()) + 1, signatures.shape[1]
    profile = np.zeros((groups, words, LETTERS))
    folded = np.where(_IS_NEUTRAL[signatures], np.uint8(Letter.ZERO), signatures)
    for word in range(words):
        np.add.at(profile[:, word, :], (group, folded[:, word]), counts)
    shares: Profile = profile / np.maximum(profile.sum(axis=2, keepdims=True), 1e-9)
    return shares


def _merged(signatures: Letters, counts: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups after those that do not differ clearly have become one."""
    while group.max() > 0:
        profile = _profiles(signatures, counts, group)
        size = np.bincount(group, counts)
        pairs = [(a, b) for a in range(len(profile)) for b in range(a)]
        apart = np.array([_apart(profile[a], profile[b]) for a, b in pairs])
        small = size < np.maximum(_LEAST, _LEAST_SHARE * counts.sum())
        apart = np.where([small[a] or small[b] for a, b in pairs], np.minimum(apart, 0.9), apart)
        nearest = int(np.argmin(apart))
        if apart[nearest] >= 1:
            break
        high, low = pairs[nearest]
        group = np.where(group == high, low, group)
        group = np.unique(group, return_inverse=True)[1].reshape(-1)
    return group


def _apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """How clearly two structures, (words, letters), differ: 1 or more for two, less for one."""
    says = [1 - one[:, Letter.ZERO] for one in (first, second)]
    first, second = (
        one * (1 - _IS_NEUTRAL) / np.maximum(s, 1e-9)[:, None] for one, s in zip((first, second), says, strict=True)
    )
    between = np.einsum("wa,ab,wb->w", first, CONFLICT, second)
    within = np.einsum("wa,ab,wb->w", first, CONFLICT, first) + np.einsum("wa,ab,wb->w", second, CONFLICT, second)
    conflict = np.maximum(between - within / 2, 0)
    weight = np.sqrt(says[0] * says[1])
    informative = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    total = float((weight * conflict).sum())
    mean = total / max(float((weight * informative).sum()), 1e-9)
    by_many = min(mean / _FAR, total / _WORDS_APART)
    by_one = float((np.minimum(*says) * conflict).max(initial=0)) / _PLAIN_APART
    return max(by_many, min(by_one, mean / _FAR))
