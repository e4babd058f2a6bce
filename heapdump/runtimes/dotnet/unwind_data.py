"""Unwind data of managed code on x64: of one jitted method by its code header, of a precompiled image by its table."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.memory.space import AddressSpace
from heapdump.runtimes.dotnet.jit_code import JitMethod
from heapdump.runtimes.dotnet.native_image import NativeImage
from heapdump.runtimes.dotnet.ready_to_run import ReadyToRun


@dataclass(frozen=True, slots=True)
class JitUnwindData:
    """The unwind data of one jitted method."""

    space: AddressSpace
    method: JitMethod

    def function_at(self, rva: int) -> tuple[int, int, int] | None:
        """The RUNTIME_FUNCTION of the code header that holds an RVA."""
        return self.method.function_at(self.method.base + rva)

    def read(self, rva: int, size: int) -> bytes | None:
        """Bytes at an RVA."""
        return self.space.try_read(self.method.base + rva, size)


@dataclass(frozen=True, slots=True)
class ImageUnwindData:
    """The unwind data of a precompiled image."""

    code: ReadyToRun | NativeImage

    def function_at(self, rva: int) -> tuple[int, int, int] | None:
        """The RUNTIME_FUNCTION of the image that holds an RVA."""
        return self.code.function_at(rva)

    def read(self, rva: int, size: int) -> bytes | None:
        """Bytes at an RVA."""
        return self.code.image.read(rva, size)
