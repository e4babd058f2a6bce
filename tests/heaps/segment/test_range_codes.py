"""The codes of LFH and VS subsegments in the flags of page descriptors: a build may number them anyhow."""

from __future__ import annotations

import pytest

from tests.builders.dump_truth import BuiltDump
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap import SegmentTruth
from tests.builders.segment_heap_layout import segment_layout
from tests.heaps.segment.plans import GENERATIONS
from tests.heaps.segment.test_damaged_heaps import built
from tests.heaps.segment.test_walk import blocks
from tests.patching import peek, poke

WITH_CODES = [generation for generation in GENERATIONS if generation[1] >= 16299]


def renumbered(
    dump: BuiltDump, truth: SegmentTruth, generation: tuple[HeapArch, int], codes: tuple[int, int], most: int = 256
) -> BuiltDump:
    """The dump with other codes of LFH and VS subsegments, in the first descriptors of each kind up to `most`."""
    lay, changes = segment_layout(*generation), []
    for start, _ in truth.segments:
        left = [most, most]
        for place in range(256 * lay.descriptor // 0x1000, 256):  # behind the units of the descriptors themselves
            at = start + place * lay.descriptor + lay.flags
            flags = peek(dump, at, 1)
            for kind in (0, 1):
                if flags & 0x1F == 3 | lay.kinds[kind] << 2 and left[kind]:
                    left[kind] -= 1
                    changes.append((at, bytes([flags & ~0x1C | codes[kind] << 2])))
    return poke(dump, *changes)


@pytest.mark.parametrize("generation", WITH_CODES, ids=str)
@pytest.mark.parametrize("codes", [(2, 3), (1, 2), (3, 2), (5, 4), (7, 1)], ids=str)
def test_the_subsegments_tell_what_codes_the_build_has(open_built, generation, codes):
    dump, _, truth = built(generation)
    with open_built(renumbered(dump, truth, generation, codes)) as snapshot:
        assert blocks(snapshot) == truth.busy
        assert snapshot.walk.findings == () and not snapshot.walk.gaps
        facts = snapshot.walk.facts[snapshot.heaps[0].index]
        assert (facts["lfh_range_code"], facts["vs_range_code"]) == codes


@pytest.mark.parametrize("generation", WITH_CODES, ids=str)
def test_one_other_code_is_damage_and_no_other_build(open_built, generation):
    dump, _, truth = built(generation)
    with open_built(renumbered(dump, truth, generation, (5, 4), most=1)) as snapshot:
        assert blocks(snapshot) == truth.busy
        assert [finding.kind for finding in snapshot.walk.findings] == ["segment", "segment"]
