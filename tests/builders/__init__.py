"""Builders of dumps and of the structures Windows keeps in them, each with the truth it wrote.

Byte layouts are restated here by hand on purpose; nothing of the tool under test is imported.
"""

from __future__ import annotations

from .dump import DumpBuilder
from .dump_truth import BuiltDump, DumpTruth
from .nt_heap import NtHeapBuilder
from .nt_heap_truth import BuiltHeap, HeapTruth
from .process import ProcessBuilder
from .segment_heap import BuiltSegmentHeap, SegmentHeapBuilder, SegmentTruth

__all__ = [
    "BuiltDump",
    "BuiltHeap",
    "BuiltSegmentHeap",
    "DumpBuilder",
    "DumpTruth",
    "HeapTruth",
    "NtHeapBuilder",
    "ProcessBuilder",
    "SegmentHeapBuilder",
    "SegmentTruth",
]
