"""Codes of __fastfail in words (winnt.h, FAST_FAIL_*): parameter 0 of STATUS_STACK_BUFFER_OVERRUN."""

from __future__ import annotations

FAST_FAIL = 0xC0000409

_NAMES = (
    "LEGACY_GS_VIOLATION", "VTGUARD_CHECK_FAILURE", "STACK_COOKIE_CHECK_FAILURE", "CORRUPT_LIST_ENTRY",
    "INCORRECT_STACK", "INVALID_ARG", "GS_COOKIE_INIT", "FATAL_APP_EXIT", "RANGE_CHECK_FAILURE",
    "UNSAFE_REGISTRY_ACCESS", "GUARD_ICALL_CHECK_FAILURE", "GUARD_WRITE_CHECK_FAILURE", "INVALID_FIBER_SWITCH",
    "INVALID_SET_OF_CONTEXT", "INVALID_REFERENCE_COUNT", "", "", "", "INVALID_JUMP_BUFFER", "MRDATA_MODIFIED",
    "CERTIFICATION_FAILURE", "INVALID_EXCEPTION_CHAIN", "CRYPTO_LIBRARY", "INVALID_CALL_IN_DLL_CALLOUT",
    "INVALID_IMAGE_BASE", "DLOAD_PROTECTION_FAILURE", "UNSAFE_EXTENSION_CALL", "DEPRECATED_SERVICE_INVOKED",
    "INVALID_BUFFER_ACCESS", "INVALID_BALANCED_TREE", "INVALID_NEXT_THREAD", "GUARD_ICALL_CHECK_SUPPRESSED",
    "APCS_DISABLED", "INVALID_IDLE_STATE", "MRDATA_PROTECTION_FAILURE", "UNEXPECTED_HEAP_EXCEPTION",
    "INVALID_LOCK_STATE", "GUARD_JUMPTABLE", "INVALID_LONGJUMP_TARGET", "INVALID_DISPATCH_CONTEXT", "INVALID_THREAD",
    "INVALID_SYSCALL_NUMBER", "INVALID_FILE_OPERATION", "LPAC_ACCESS_DENIED", "GUARD_SS_FAILURE",
    "LOADER_CONTINUITY_FAILURE", "GUARD_EXPORT_SUPPRESSION_FAILURE", "INVALID_CONTROL_STACK", "SET_CONTEXT_DENIED",
    "INVALID_IAT", "HEAP_METADATA_CORRUPTION", "PAYLOAD_RESTRICTION_VIOLATION", "LOW_LABEL_ACCESS_DENIED",
    "ENCLAVE_CALL_FAILURE", "UNHANDLED_LSS_EXCEPTON", "ADMINLESS_ACCESS_DENIED", "UNEXPECTED_CALL",
    "CONTROL_INVALID_RETURN_ADDRESS", "UNEXPECTED_HOST_BEHAVIOR", "FLAGS_CORRUPTION", "VEH_CORRUPTION",
    "ETW_CORRUPTION", "RIO_ABORT", "INVALID_PFN", "GUARD_ICALL_CHECK_FAILURE_XFG", "CAST_GUARD",
    "HOST_VISIBILITY_CHANGE", "KERNEL_CET_SHADOW_STACK_ASSIST", "PATCH_CALLBACK_FAILED", "NTDLL_PATCH_FAILED",
    "INVALID_FLS_DATA", "ASAN_ERROR",
)  # fmt: skip
"""FAST_FAIL_ names by their code; "" for codes without a name."""

_WORDS = {
    0: "a stack buffer was overrun (/GS)",
    2: "a stack buffer was overrun (/GS cookie)",
    3: "a linked list is corrupted",
    5: "invalid parameter passed to a C runtime function",
    7: "abort() or std::terminate()",
    8: "array bounds exceeded",
    10: "indirect call to an invalid target (CFG)",
    14: "reference count out of range",
    50: "heap metadata is corrupted",
    71: "AddressSanitizer found an error",
}

STACK_OVERRUNS, HEAP_METADATA = (0, 2), (35, 50)
"""Codes of an overrun stack buffer; codes that heap code raises."""


def fast_fail_words(code: int) -> str:
    """`fast fail 7 (FATAL_APP_EXIT): abort() or std::terminate()`."""
    name = _NAMES[code] if code < len(_NAMES) else ""
    words = _WORDS.get(code, "")
    return f"fast fail {code}" + (f" ({name})" if name else "") + (f": {words}" if words else "")
