"""Asks the processor for a cache line before it is needed, as an intrinsic for kernels."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_READ, _KEEP, _DATA = 0, 3, 1
"""Arguments of llvm.prefetch: for reading, into all levels, data cache."""


@intrinsic
def prefetch(typing, address):
    """Fetch the cache line at an address, which may be wrong: nothing happens then."""

    def emit(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(function, [pointer, number(_READ), number(_KEEP), number(_DATA)])
        return context.get_dummy_value()

    return types.void(types.uint64), emit
