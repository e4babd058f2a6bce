"""Containers of a real program of Rust: its hash maps, strings and vectors are found with what they use and have."""

from __future__ import annotations

import pytest

from heapdump.analyses.containers.node_roles import NodeKind
from heapdump.analyses.types.members import Container
from tests.analyses.containers.native import compiled, laid_out

PROGRAM = r"""
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, AtomicBool, Ordering::SeqCst};
extern "C" { fn mmap(at: usize, size: usize, prot: i32, flags: i32, fd: i32, off: i64) -> usize; }
struct Ours;
static NEXT: AtomicUsize = AtomicUsize::new(0);
static QUIET: AtomicBool = AtomicBool::new(true);
static mut BLOCKS: [(usize, usize); 65536] = [(0, 0); 65536];
static MANY: AtomicUsize = AtomicUsize::new(0);
const BASE: usize = 0x500000000000;
unsafe impl GlobalAlloc for Ours {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        if QUIET.load(SeqCst) { return System.alloc(l); }
        if NEXT.load(SeqCst) == 0 { NEXT.store(mmap(BASE, 1 << 26, 3, 0x32, -1, 0), SeqCst); }
        let at = NEXT.fetch_add((l.size() + 15) / 16 * 16 + 32, SeqCst);
        BLOCKS[MANY.fetch_add(1, SeqCst)] = (at, l.size());
        std::ptr::write_bytes(at as *mut u8, 0xA5, l.size());
        at as *mut u8
    }
    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        if (p as usize) < BASE || (p as usize) >= BASE + (1 << 26) { return System.dealloc(p, l); }
        for i in 0..MANY.load(SeqCst) { if BLOCKS[i].0 == p as usize { BLOCKS[i].0 = 0; } }
    }
}
#[global_allocator]
static OURS: Ours = Ours;
struct Owner { id: u64, map: HashMap<u64, [u8; 12]>, set: HashSet<u32>, name: String, points: Vec<[f64; 3]> }
fn main() {
    QUIET.store(false, SeqCst);
    let mut all: Vec<Box<Owner>> = Vec::new();
    for n in 0..6usize {
        let many = if n < 3 { n + 4 } else { 50 * n };
        let mut o = Box::new(Owner { id: n as u64, map: HashMap::new(), set: HashSet::new(), name: String::new(), points: Vec::new() });
        for i in 0..many {
            o.map.insert(i as u64 * 7919, [i as u8; 12]);
            o.set.insert(i as u32);
            o.points.push([i as f64, 1.5, -2.5]);
        }
        for i in 0..many / 4 { o.map.remove(&(i as u64 * 7919)); }
        o.name.push_str("the name of an object, ");
        o.name.push_str(&"long ".repeat(n + 1));
        all.push(o);
    }
    QUIET.store(true, SeqCst);
    for o in &all {
        println!("T {:x} {} {} HashMap (Rust)", &**o as *const _ as usize, &o.map as *const _ as usize - &**o as *const _ as usize, o.map.len() * 24);
        println!("T {:x} {} {} HashMap (Rust)", &**o as *const _ as usize, &o.set as *const _ as usize - &**o as *const _ as usize, o.set.len() * 4);
        println!("T {:x} {} {} array with capacity", &**o as *const _ as usize, &o.name as *const _ as usize - &**o as *const _ as usize, o.name.len());
        println!("T {:x} {} {} array with capacity", &**o as *const _ as usize, &o.points as *const _ as usize - &**o as *const _ as usize, o.points.len() * 24);
    }
    unsafe { for i in 0..MANY.load(SeqCst) { let (at, size) = BLOCKS[i]; if at != 0 {
        print!("B {:x} ", at);
        for k in 0..size { print!("{:02x}", *((at + k) as *const u8)); }
        println!();
    } } }
    std::process::exit(all.iter().map(|o| o.id as i32).sum::<i32>() - 15);
}
"""


def test_containers_of_rust_are_found(tmp_path, open_built):
    captured = compiled(tmp_path, PROGRAM, ["rustc", "-O", "-Awarnings"], ".rs")
    dump, moved = laid_out(captured)
    with open_built(dump) as snapshot:
        found, start = snapshot.types.containers, snapshot.graph.start
        columns = (found.owner.tolist(), found.offset.tolist(), found.kind.tolist(), found.used.tolist())
        known = {
            (int(start[owner]), offset): (Container(kind).words, used)
            for owner, offset, kind, used in zip(*columns, strict=True)
        }
    expected = {(moved[owner], offset): (kind, used) for owner, offset, kind, used in captured.truth}
    assert known == expected


RING = "for i in 0..many as u64 { o.ring.push_back(i); } for i in 0..many as u64 / 2 { o.ring.pop_front(); o.ring.push_back(i); }"


def test_rings_of_rust_are_told_from_vectors(tmp_path, open_built):
    source = PROGRAM.replace("HashMap, HashSet}", "HashMap, HashSet, VecDeque}").replace(
        "points: Vec<[f64; 3]> }", "points: Vec<[f64; 3]>, ring: VecDeque<u64> }"
    )
    source = source.replace("points: Vec::new() }", "points: Vec::new(), ring: VecDeque::with_capacity(many) }")
    source = source.replace('o.name.push_str("the', RING + ' o.name.push_str("the')
    written = """println!("T {:x} {} {} VecDeque (Rust)", &**o as *const _ as usize, 0, o.ring.len() * 8);"""
    source = source.replace("for o in &all {", "for o in &all { " + written)
    captured = compiled(tmp_path, source, ["rustc", "-O", "-Awarnings"], ".rs")
    dump, moved = laid_out(captured, text=b"rust_panic")
    with open_built(dump) as snapshot:
        found, start = snapshot.types.containers, snapshot.graph.start
        columns = (found.owner.tolist(), found.kind.tolist(), found.used.tolist())
        rings = {
            int(start[owner]): used for owner, kind, used in zip(*columns, strict=True) if kind == Container.VEC_DEQUE
        }
        vectors = sum(kind == Container.VEC for kind in found.kind.tolist())
    expected = {moved[owner]: used for owner, _, kind, used in captured.truth if kind == "VecDeque (Rust)"}
    assert rings == expected
    assert vectors == len(expected)


FILL = """for i in 0..many as u64 { o.tree.insert(i * 7919 % 1009, [i as u32; 3]); o.small.insert(i as u16, 1); }
    for i in 0..many as u64 / 4 { o.tree.remove(&(i * 7919 % 1009)); }"""
SAY = """for (t, n) in [(&o.tree as *const _ as usize, o.tree.len()), (&o.small as *const _ as usize, o.small.len())] {
    println!("T {:x} {} {} BTreeMap (Rust)", &**o as *const _ as usize, t - &**o as *const _ as usize, n); }"""


@pytest.mark.parametrize("text", [b"rust_panic", b""], ids=["Rust", "another language"])
def test_b_trees_of_rust_are_found(tmp_path, open_built, text):
    source = PROGRAM.replace("HashMap, HashSet}", "HashMap, HashSet, BTreeMap}").replace(
        "points: Vec<[f64; 3]> }", "points: Vec<[f64; 3]>, tree: BTreeMap<u64, [u32; 3]>, small: BTreeMap<u16, u8> }"
    )
    source = source.replace(
        "points: Vec::new() }", "points: Vec::new(), tree: BTreeMap::new(), small: BTreeMap::new() }"
    )
    source = source.replace('o.name.push_str("the', FILL + ' o.name.push_str("the')
    source = source.replace("for o in &all {", "for o in &all { " + SAY)
    captured = compiled(tmp_path, source, ["rustc", "-O", "-Awarnings"], ".rs")
    dump, moved = laid_out(captured, text=text)
    with open_built(dump) as snapshot:
        found, graph = snapshot.types.nodes, snapshot.graph
        columns = (found.owner.tolist(), found.offset.tolist(), found.kind.tolist(), found.count.tolist())
        known = {
            (int(graph.start[owner]), offset, count)
            for owner, offset, kind, count in zip(*columns, strict=True)
            if kind == NodeKind.B_TREE
        }
        labels = [label.label for label in snapshot.types.typing.labels]
    truth = [one for one in captured.truth if one[2] == "BTreeMap (Rust)" and one[3] > 11]  # of several nodes
    assert known == ({(moved[owner], offset, count) for owner, offset, _, count in truth} if text else set())
    assert any("node of the BTreeMap (Rust)" in label for label in labels) == bool(text)
