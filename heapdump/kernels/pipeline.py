"""The steps in which numba translates a kernel: its default ones without those that change nothing in a kernel.

Left out are closures, inlining, literals, dead branches, array expressions, and SSA form, which LLVM makes anew. They
take 45 % of the time. Source: `DefaultPassBuilder` in numba/core/compiler.py, 0.60 to 0.68.
"""

from __future__ import annotations

from typing import Any

from numba.core import ir, typed_passes, untyped_passes
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass


@register_pass(mutates_CFG=False, analysis_only=False)  # type: ignore[no-untyped-call]
class Constants(FunctionPass):
    """Makes integers of modules plain constants. Without SSA form, a variable cannot get two of the former."""

    _name = "heapdump_constants"

    def __init__(self) -> None:
        """As numba demands."""

    def run_pass(self, state: Any) -> bool:
        """Changes `state.func_ir`."""
        for block in state.func_ir.blocks.values():
            for one in block.find_insts(ir.Assign):
                if isinstance(one.value, ir.Global | ir.FreeVar) and type(one.value.value) is int:
                    one.value = ir.Const(one.value.value, one.loc)  # type: ignore[no-untyped-call]
        return True


class KernelPipeline(CompilerBase):
    """The steps, for `pipeline_class` of numba."""

    STEPS = (
        untyped_passes.TranslateByteCode,
        untyped_passes.FixupArgs,
        untyped_passes.IRProcessing,
        Constants,
        untyped_passes.GenericRewrites,  # indexes that are constant
        typed_passes.NopythonTypeInference,
        typed_passes.IRLegalization,
        typed_passes.NativeLowering,
        typed_passes.NoPythonBackend,
    )

    def define_pipelines(self) -> list[Any]:
        """One list of steps."""
        manager: Any = PassManager("kernel")  # type: ignore[no-untyped-call]
        for step in self.STEPS:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]
