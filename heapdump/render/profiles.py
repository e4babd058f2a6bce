"""Grouped stacks in the formats of profile viewers: folded lines, speedscope, pprof.

In: samples with frames, blocks and bytes. Out: text, or the bytes of a gzipped protocol buffer.
"""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heapdump.render.machine import encoded

NO_STACK = "(no stack recorded)"


@dataclass(frozen=True, slots=True)
class SampleFrame:
    """A frame as viewers show it. `address`: 0 for a frame without one; `file`, `line`: None where not known."""

    name: str
    address: int
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The blocks of one stack.

    Attributes:
        frames: innermost first; () where no stack is recorded.
        blocks: number of blocks; of a difference the change without its sign.
        bytes: requested bytes; of a difference the change without its sign.
        net_blocks: change of the blocks with its sign; None where the sample is no difference.
        net_bytes: change of the bytes with its sign; None where the sample is no difference.
    """

    frames: tuple[SampleFrame, ...]
    blocks: int
    bytes: int
    net_blocks: int | None = None
    net_bytes: int | None = None


def _named(sample: Sample) -> tuple[SampleFrame, ...]:
    return sample.frames or (SampleFrame(NO_STACK, 0),)


def names_of(sample: Sample) -> tuple[str, ...]:
    """Names of the frames of a sample, innermost first; `NO_STACK` for a sample without frames."""
    return tuple(frame.name for frame in _named(sample))


def folded(samples: Sequence[Sample], *, by_blocks: bool) -> Iterator[str]:
    """`outermost;…;innermost 123` lines, which flamegraph.pl reads."""
    for sample in samples:
        names = (frame.name.replace(";", ":") for frame in reversed(_named(sample)))
        yield f"{';'.join(names)} {sample.blocks if by_blocks else sample.bytes}\n"


def speedscope(samples: Sequence[Sample], name: str) -> str:
    """JSON by https://www.speedscope.app/file-format-schema.json, with a profile of bytes and one of blocks."""
    numbers: dict[SampleFrame, int] = {}
    stacks = [[numbers.setdefault(frame, len(numbers)) for frame in reversed(_named(sample))] for sample in samples]
    frames = []
    for frame in numbers:
        entry: dict[str, object] = {"name": frame.name}
        if frame.file:
            entry["file"] = frame.file
        if frame.line is not None:
            entry["line"] = frame.line
        frames.append(entry)

    def profile(title: str, unit: str, weights: list[int]) -> dict[str, object]:
        """One of the document's profiles."""
        return {
            "type": "sampled", "name": title, "unit": unit, "startValue": 0, "endValue": sum(weights),
            "samples": stacks,
            "weights": weights,
        }  # fmt: skip

    document = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "heapdump",
        "name": name,
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": [
            profile("busy bytes", "bytes", [sample.bytes for sample in samples]),
            profile("busy blocks", "none", [sample.blocks for sample in samples]),
        ],
    }
    return encoded(document, separators=(",", ":"))


def pprof(
    samples: Sequence[Sample], modules: Sequence[tuple[str, int, int]], when: int, base: Sequence[Sample] = ()
) -> bytes:
    """A gzipped profile.proto with the sample types inuse_objects and inuse_space, for `go tool pprof`.

    `modules`: (path, start, end) of each mapping; `when`: seconds since 1970. `base`: samples that are subtracted, as
    `pprof -diff_base` does: with negative values and the label pprof::base.
    """
    return gzip.compress(_Profile(modules).encoded(samples, when, base), mtime=0)


_MASK = (1 << 64) - 1


class _Profile:
    """Builds the protocol buffer message; field numbers by github.com/google/pprof/proto/profile.proto."""

    def __init__(self, modules: Sequence[tuple[str, int, int]]) -> None:
        self._modules = sorted(modules, key=lambda module: module[1])
        self._starts = [start for _, start, _ in self._modules]
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[SampleFrame, int] = {}

    def encoded(self, samples: Sequence[Sample], when: int, base: Sequence[Sample] = ()) -> bytes:
        """The message, not yet packed; `when` in seconds since 1970."""
        types = [("inuse_objects", "count"), ("inuse_space", "bytes")]
        out = b"".join(_message(1, self._pair(*kind)) for kind in types)
        out += b"".join(_message(2, self._sample(sample, 1)) for sample in samples)
        if base:
            label = _message(3, _field(1, self._string("pprof::base")) + _field(2, self._string("true")))
            out += b"".join(_message(2, self._sample(sample, -1) + label) for sample in base)
        for number, (name, start, end) in enumerate(self._modules, 1):
            out += _message(
                3, _field(1, number) + _field(2, start) + _field(3, end) + _field(5, self._string(name)) + _field(7, 1)
            )
        for frame, number in self._locations.items():
            line = _field(1, self._function(frame)) + _field(2, frame.line or 0)
            out += _message(
                4,
                _field(1, number)
                + _field(2, self._mapping(frame.address))
                + _field(3, frame.address)
                + _message(4, line),
            )
        for (name, file), number in self._functions.items():
            text = self._string(name)
            out += _message(5, _field(1, number) + _field(2, text) + _field(3, text) + _field(4, self._string(file)))
        out += _field(14, self._string("inuse_space")) + _field(9, when * 1_000_000_000)
        return out + b"".join(_message(6, text.encode("utf-8", "replace")) for text in self._strings)

    def _sample(self, sample: Sample, sign: int) -> bytes:
        values = [sign * sample.blocks & _MASK, sign * sample.bytes & _MASK]  # int64 as its two's complement
        return _packed(1, [self._location(frame) for frame in _named(sample)]) + _packed(2, values)

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _pair(self, kind: str, unit: str) -> bytes:
        return _field(1, self._string(kind)) + _field(2, self._string(unit))

    def _location(self, frame: SampleFrame) -> int:
        return self._locations.setdefault(frame, len(self._locations) + 1)

    def _function(self, frame: SampleFrame) -> int:
        return self._functions.setdefault((frame.name, frame.file or ""), len(self._functions) + 1)

    def _mapping(self, address: int) -> int:
        i = bisect_right(self._starts, address)
        return i if i and address < self._modules[i - 1][2] else 0


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _packed(number: int, values: Sequence[int]) -> bytes:
    return _message(number, b"".join(map(_varint, values)))
