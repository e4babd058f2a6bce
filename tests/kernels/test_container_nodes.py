"""Heads of lists and trees, and the nodes that lead to them: the loops beside their definition, plain and compiled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.kernels.container_nodes import heads_of, leading_to

pytestmark = pytest.mark.property
NODES = st.lists(st.tuples(st.sampled_from([24, 32, 48]), st.lists(st.integers(-9, 9), max_size=4)), max_size=9)


@settings(max_examples=80)
@given(NODES)
def test_heads_and_what_leads_there_are_as_defined(nodes):
    many = len(nodes)
    sizes, edges = [size for size, _ in nodes], [[t for t in found if -many <= t < many] for _, found in nodes]
    heads = {
        node
        for node, found in enumerate(edges)
        if len(found) >= 2 and all(t >= 0 and sizes[t] == sizes[node] for t in found[:2])
    }
    leading = {
        node
        for node, found in enumerate(edges)
        if any(t in heads and (sizes[t] != sizes[node] or node not in heads) for t in found)
    }
    first = np.concatenate([[0], np.cumsum([len(found) for found in edges])]).astype(np.int32)
    targets = np.array([t for found in edges for t in found], np.int32)
    size = np.array(sizes, np.int32)
    for compile_ in (lambda function: function, lambda function: kernels.compiled(function) or function):
        is_head, out = np.full(many, 7, np.uint8), np.full(many, 7, np.uint8)
        compile_(heads_of)(first, targets, size, is_head)
        compile_(leading_to)(first, targets, size, is_head, out)
        assert is_head.tolist() == [int(node in heads) for node in range(many)]
        assert out.tolist() == [int(node in leading) for node in range(many)]
