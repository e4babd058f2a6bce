"""Findings: one broken rule at one address; and the kinds of findings.

Walks and checks make findings and go on. Everything that depends on the kind of a finding stands in its
`FindingRule`: the sentence of reports and of SARIF, the bytes that the rule protects, the bug that breaks it. An
allocator package adds its own kinds with `define`; the kinds below belong to the allocators of heapdump.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Literal

FindingKind = str
"""The JSON word of a kind of finding: a key of `FINDING_RULES`."""

Severity = Literal["error", "warning"]


class BugKind(StrEnum):
    """A bug of a program, named as AddressSanitizer names it (semantics.md §2.10)."""

    OVERFLOW = "heap-buffer-overflow"
    UNDERFLOW = "heap-buffer-underflow"
    USE_AFTER_FREE = "heap-use-after-free"
    DOUBLE_FREE = "double-free"
    BAD_FREE = "bad-free"
    MISMATCH = "heap-mismatch"
    CORRUPTION = "heap-corruption"
    LEAK = "memory-leak"
    LOCK = "lock-misuse"
    HANDLE = "invalid-handle"
    STACK_OVERRUN = "stack-buffer-overrun"
    FAIL_FAST = "fail-fast"
    STACK_OVERFLOW = "stack-overflow"
    STACK_BUFFER = "stack-buffer-overflow"
    STACK_UNDERFLOW = "stack-buffer-underflow"
    STACK_AFTER_RETURN = "stack-use-after-return"
    STACK_AFTER_SCOPE = "stack-use-after-scope"
    DYNAMIC_STACK = "dynamic-stack-buffer-overflow"
    GLOBAL_BUFFER = "global-buffer-overflow"
    CONTAINER = "container-overflow"
    POISONED = "use-after-poison"
    DEALLOCATION = "alloc-dealloc-mismatch"

    @property
    def sentence(self) -> str:
        """One sentence that says what the program did wrong, for reports and SARIF."""
        return _BUG_SENTENCES[self]


_BUG_SENTENCES = {
    BugKind.OVERFLOW: "The program wrote or read past the end of a block",
    BugKind.UNDERFLOW: "The program wrote or read before the start of a block",
    BugKind.USE_AFTER_FREE: "The program used a block after it freed it",
    BugKind.DOUBLE_FREE: "The program freed a block twice",
    BugKind.BAD_FREE: "The program freed a pointer that no allocation returned",
    BugKind.MISMATCH: "The program freed a block to another heap than its own",
    BugKind.CORRUPTION: "A heap is damaged; the bytes do not tell by which bug",
    BugKind.LEAK: "A DLL was unloaded and left an allocation behind",
    BugKind.LOCK: "The program misused a lock",
    BugKind.HANDLE: "The program used an invalid handle",
    BugKind.STACK_OVERRUN: "The program wrote past the end of a buffer on the stack",
    BugKind.FAIL_FAST: "The process ended itself with a fast fail",
    BugKind.STACK_OVERFLOW: "A thread used up its stack",
    BugKind.STACK_BUFFER: "The program used memory past the end of a buffer on the stack",
    BugKind.STACK_UNDERFLOW: "The program used memory before the start of a buffer on the stack",
    BugKind.STACK_AFTER_RETURN: "The program used a variable of a function that has returned",
    BugKind.STACK_AFTER_SCOPE: "The program used a variable outside of its scope",
    BugKind.DYNAMIC_STACK: "The program used memory past the end of an array on the stack",
    BugKind.GLOBAL_BUFFER: "The program used memory past the end of a global variable",
    BugKind.CONTAINER: "The program used the unused capacity of a container",
    BugKind.POISONED: "The program used memory that it had marked as not to be used",
    BugKind.DEALLOCATION: "The program freed memory by another function than allocated it",
}


class Protected(Enum):
    """The bytes that a rule protects. They decide which blocks are candidates for the cause of a finding."""

    HEADER = "the header between two blocks"
    BLOCK = "bytes that belong to one block, beside its requested bytes"
    FREED = "the body of a freed block"
    LIST = "a list or a count of the heap"
    REPORT = "nothing: Windows reported it"


@dataclass(frozen=True, slots=True)
class FindingRule:
    """One kind of finding.

    Attributes:
        kind: its JSON word.
        sentence: the meaning of such a finding, for reports and SARIF.
        protected: the bytes that the rule protects.
        bug: the bug that breaks the rule; None where several bugs can.
    """

    kind: FindingKind
    sentence: str
    protected: Protected
    bug: BugKind | None = None


FINDING_RULES: dict[FindingKind, FindingRule] = {}
"""Kind → its rule, for every kind that was defined."""


def define(kind: FindingKind, sentence: str, protected: Protected, bug: BugKind | None = None) -> None:
    """Defines a kind of finding; an equal second definition has no effect.

    Raises:
        ValueError: `kind` is defined already with another rule.
    """
    rule = FindingRule(kind, sentence, protected, bug)
    if FINDING_RULES.setdefault(kind, rule) != rule:
        raise ValueError(f"finding kind {kind}: the word is taken")


define("entry_header", "An entry header of a heap is damaged", Protected.HEADER)
define("size_chain", "Sizes of neighbouring entries contradict each other", Protected.HEADER)
define("segment", "A segment's own data or list is damaged", Protected.LIST)
define("ucr", "A list of uncommitted ranges is damaged", Protected.LIST)
define("free_list", "A free list is damaged", Protected.FREED, BugKind.USE_AFTER_FREE)
define("virtual_list", "The list of large blocks is damaged", Protected.LIST)
define("lfh_subsegment", "A block header or subsegment of the low fragmentation heap is damaged", Protected.HEADER)
define("vs_chunk", "A chunk header of a segment heap is damaged", Protected.HEADER)
define("large_metadata", "The tree of large allocations is damaged", Protected.LIST)
define("tail_fill", "Bytes behind a block were written to", Protected.BLOCK, BugKind.OVERFLOW)
define("free_fill", "A free block was written to", Protected.FREED, BugKind.USE_AFTER_FREE)
define("front_prefix", "The mark between a block and its recorded stack is damaged", Protected.BLOCK, BugKind.UNDERFLOW)
define("front_padding", "The padding in front of a block was written to", Protected.BLOCK, BugKind.UNDERFLOW)
define("page_header", "The stamps before a page heap block are damaged", Protected.BLOCK, BugKind.UNDERFLOW)
define("page_suffix", "Bytes behind a page heap block were written to", Protected.BLOCK, BugKind.OVERFLOW)
define("page_freed_fill", "A freed page heap block was written to", Protected.FREED, BugKind.USE_AFTER_FREE)
define("crt_guard", "A guard of the CRT's debug heap is damaged", Protected.BLOCK)
define("asan_chunk", "A chunk header of AddressSanitizer is damaged", Protected.HEADER)
define("asan_report", "AddressSanitizer stopped the process", Protected.REPORT)
define("failure_record", "ntdll found a heap damaged", Protected.REPORT)
define("exception", "The process raised an exception", Protected.REPORT)
define("verifier_stop", "Application Verifier stopped the process", Protected.REPORT)


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule at one address.

    Attributes:
        kind: key of `FINDING_RULES`.
        severity: `error` where a healthy heap cannot look like this; `warning` where it can while a thread changes it.
        heap: address of the heap; 0 for none.
        address: of the first damaged byte.
        length: bytes from `address` on that are known to be damaged.
        message: one sentence for a person.
        expected: hex or words: the bytes or the state that the rule demands; "" where it demands no single one.
        found: hex or words: the bytes or the state in the dump; "" likewise.
        is_cut: True where more bytes are damaged, or may be, than `length` says.
    """

    kind: FindingKind
    severity: Severity
    heap: int
    address: int
    length: int
    message: str
    expected: str
    found: str
    is_cut: bool = False

    @property
    def at_least(self) -> str:
        """The words before the number of damaged bytes; "" where it is all of them."""
        return "at least " if self.is_cut else ""

    def to_record(self) -> dict[str, str | int]:
        """Its fields by name, for the index. Each is named here, for `dataclasses.asdict` is slow."""
        return {
            "kind": self.kind, "severity": self.severity, "heap": self.heap, "address": self.address,
            "length": self.length, "message": self.message, "expected": self.expected, "found": self.found,
            "is_cut": self.is_cut,
        }  # fmt: skip

    @property
    def rule(self) -> FindingRule:
        """The rule that is broken."""
        return FINDING_RULES[self.kind]

    @property
    def is_error(self) -> bool:
        """True for severity `error`."""
        return self.severity == "error"

    @property
    def is_report(self) -> bool:
        """True for a report that Windows wrote, False for damage that heapdump found."""
        return self.rule.protected is Protected.REPORT
