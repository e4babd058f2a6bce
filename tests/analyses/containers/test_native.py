"""Containers of real programs, as compilers here lay them out: all are found, counted, and nothing else is."""

from __future__ import annotations

import pytest

from heapdump.analyses.containers.node_roles import NodeKind, Role
from heapdump.analyses.types.members import Container
from tests.analyses.containers.native import CXX, compiled, laid_out

PROGRAM = r"""
struct Text { char text[40]; };
struct Owner {
    long id;
    std::list<Text> list;
    std::map<int, Text> map;
    std::set<std::string> set;
    std::unordered_map<int, Text> hash;
    std::unordered_set<std::string> words;
    std::deque<int> numbers;
    std::deque<Text> texts;
    std::list<long> none;
    std::map<long, long> one;
};
int main() {
    for (int n = 0; n < 6; n++) {
        Owner *o = new Owner;
        int many = n < 3 ? n + 2 : 40 * n;
        o->id = many;
        for (int i = 0; i < many; i++) {
            Text t; snprintf(t.text, 40, "value %d of %d", i, n);
            o->list.push_back(t);
            o->map[i * 7919 % 10007] = t;
            o->set.insert("a word that is long enough for a block " + std::to_string(i));
            o->hash[i * 31] = t;
            o->words.insert(std::to_string(i * 17));
            o->numbers.push_back(i);
            o->texts.push_front(t);
        }
        for (int i = 0; i < many / 3; i++) { o->numbers.pop_front(); o->map.erase(o->map.begin()); }
        o->one[5] = 7;
        holds(o, &o->list, "std::list", o->list.size());
        holds(o, &o->map, "std::map or set", o->map.size());
        holds(o, &o->set, "std::map or set", o->set.size());
        holds(o, &o->hash, "std::unordered_map or set", o->hash.size());
        holds(o, &o->words, "std::unordered_map or set", o->words.size());
        holds(o, &o->numbers, "std::deque", o->numbers.size());
        holds(o, &o->texts, "std::deque", o->texts.size());
    }
    finish();
}
"""


@pytest.mark.parametrize("compiler", ["g++ -O2", "clang++ -O0"])
def test_containers_of_libstdcxx_are_found(tmp_path, open_built, compiler):
    captured = compiled(tmp_path, CXX + PROGRAM, [*compiler.split(), "-std=c++17", "-w"], ".cpp")
    dump, moved = laid_out(captured)
    with open_built(dump) as snapshot:
        found, start = snapshot.types.nodes, snapshot.graph.start
        columns = (found.owner.tolist(), found.offset.tolist(), found.kind.tolist(), found.count.tolist())
        known = {
            (int(start[owner]), offset): (NodeKind(kind).words, count)
            for owner, offset, kind, count in zip(*columns, strict=True)
        }
        nodes = dict.fromkeys(range(len(found)), 0)
        for number, role in zip(found.container.tolist(), found.role.tolist(), strict=True):
            if role == Role.NODE:
                nodes[number] += 1
        assert set(snapshot.types.containers.kind.tolist()) <= {Container.GNU_STRING}
    expected = {(moved[owner], offset): (kind, count) for owner, offset, kind, count in captured.truth if count >= 2}
    uncounted = {place: (kind, 0 if kind == "std::deque" else count) for place, (kind, count) in expected.items()}
    assert known == uncounted
    assert sorted(many for many in nodes.values() if many) == sorted(
        count for kind, count in expected.values() if kind != "std::deque"
    )
