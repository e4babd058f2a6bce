"""The fields of a cluster: the words that its blocks have in common.

In: clusters with their sampled words. Out: a `ClusterField` for each word that has one nature in nearly all blocks of
the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.clusters.find import Clusters
from heapdump.analyses.clusters.letters import LETTERS, NEUTRAL, Letter
from heapdump.analyses.clusters.sample import WordReader

_NEARLY, _SOMETIMES = 0.7, 0.1
"""Share of one letter among the words that say something, and among all words: at least."""

_MOSTLY = 0.6
"""Of the pointers of a field: the share that leads to one cluster, or of those whose target points back."""

_MOST_LINKS = 4
_NAMED = (Letter.POINTER, Letter.MODULE, Letter.TEXT, Letter.FLOAT, Letter.TIME, Letter.NUMBER)


@dataclass(frozen=True, slots=True)
class ClusterField:
    """A word that has one nature in nearly all blocks of a cluster.

    Attributes:
        offset: of the word in the blocks, in bytes.
        letter: its nature.
        share: share of the blocks in which it has this nature, 0.0 to 1.0.
        target: for pointers to blocks the cluster that most of them lead to; -1 for none.
        value: for pointers into modules the value that nearly all blocks have; None where they differ.
        back: offset of the word with which the targets of most pointers point back; None for none.
    """

    offset: int
    letter: Letter
    share: float
    target: int = -1
    value: int | None = None
    back: int | None = None


def fields_of(clusters: Clusters, reader: WordReader) -> list[list[ClusterField]]:
    """The fields of each cluster, ascending by offset."""
    sample, number = clusters.sample, clusters.sample_number
    words, many = sample.letters.shape[1], len(clusters.size)
    known = np.flatnonzero(number >= 0)
    place = number[known, None] * words + np.arange(words)
    counts = np.bincount((place * LETTERS + sample.letters[known]).reshape(-1), minlength=many * words * LETTERS)
    counts = counts.reshape(many, words, LETTERS)
    counts[:, :, Letter.POINTER] += np.where(counts[:, :, Letter.POINTER] > 0, counts[:, :, Letter.STALE], 0)
    total = counts.sum(axis=2)
    informative = (
        total
        - counts[:, :, list(NEUTRAL)].sum(axis=2)
        - np.where(counts[:, :, Letter.POINTER] > 0, counts[:, :, Letter.STALE], 0)
    )
    row, at = np.nonzero(sample.refs >= 0)
    targets = _modes(number[row] * words + at, clusters.number[sample.refs[row, at]].astype(np.int64), many * words)
    row, at = np.nonzero(sample.letters == Letter.MODULE)
    values = _modes(number[row] * words + at, sample.values[row, at], many * words)
    out = []
    for cluster in range(many):
        found = []
        for word in range(min(words, int(clusters.size[cluster] // clusters.width[cluster]))):
            letter = _letter(counts[cluster, word], int(informative[cluster, word]), int(total[cluster, word]))
            if letter is None:
                continue
            at, share = cluster * words + word, counts[cluster, word, letter] / total[cluster, word]
            least = _MOSTLY * counts[cluster, word, letter]
            target = int(targets[0][at]) if letter is Letter.POINTER and targets[1][at] >= least else -1
            value = int(values[0][at]) if letter is Letter.MODULE and values[1][at] >= least / _MOSTLY * 0.9 else None
            found.append(ClusterField(word * int(clusters.width[cluster]), letter, float(share), target, value))
        out.append(_with_back_links(clusters, reader, cluster, found))
    return out


def _letter(counts: NDArray[np.int64], informative: int, total: int) -> Letter | None:
    """The letter of nearly all words that are not neutral (`informative`: their number); None where there is none."""
    best = max(_NAMED, key=lambda letter: int(counts[letter]))
    count = int(counts[best])
    return best if count >= max(3, _NEARLY * informative, _SOMETIMES * total) else None


def _modes(
    place: NDArray[np.int64], values: NDArray[np.int64], places: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(the most common value at each place, how often it is there), (places,) each.

    Values and places below 0 do not count.
    """
    mode, times = np.full(places, -1, np.int64), np.zeros(places, np.int64)
    good = (values >= 0) & (place >= 0)
    place, values = place[good], values[good].astype(np.int64)
    order = np.lexsort((values, place))
    place, values = place[order], values[order]
    is_new = np.ones(len(place), bool)
    is_new[1:] = (place[1:] != place[:-1]) | (values[1:] != values[:-1])
    first = np.flatnonzero(is_new)
    count = np.diff(np.append(first, len(place)))
    best = np.lexsort((-values[first], count, place[first]))  # the last one of a place wins
    mode[place[first[best]]], times[place[first[best]]] = values[first[best]], count[best]
    return mode, times


def _with_back_links(
    clusters: Clusters, reader: WordReader, cluster: int, fields: list[ClusterField]
) -> list[ClusterField]:
    """The fields; those to the own cluster with the field by which the target points back."""
    width = int(clusters.width[cluster])
    links = [field for field in fields if field.target == cluster][:_MOST_LINKS]
    if len(links) < 2:
        return fields
    sample = clusters.sample
    rows = np.flatnonzero(clusters.sample_number == cluster)
    back: dict[int, tuple[float, int]] = {}
    most = max(field.offset for field in links) // width + 1
    for field in links:
        targets = sample.refs[rows, field.offset // width]
        good = np.flatnonzero(targets >= 0)
        good = good[clusters.number[targets[good]] == cluster]
        _, _, refs = reader.read(targets[good], most)
        for other in links:
            if other is not field and len(good):
                share = float(np.mean(refs[:, other.offset // width] == sample.node[rows[good]]))
                if share > back.get(field.offset, (_MOSTLY, 0))[0]:
                    back[field.offset] = (share, other.offset)
    return [
        ClusterField(one.offset, one.letter, one.share, one.target, one.value, back[one.offset][1])
        if one.offset in back
        else one
        for one in fields
    ]
