"""Acquire loads and release stores on one column of a table: how two threads tell each other something.

Plain LLVM atomics, so kernels that use them cache on disk. A plain read may be hoisted out of a loop for ever and
arm64 reorders plain stores: every published word (queue indices, `stop`, `idle`) goes through these.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _element(context, builder, signature, values):
    """Pointer to column[index], and the element's size in bytes."""
    column_type = signature.args[0]
    column = context.make_array(column_type)(context, builder, values[0])
    index = context.cast(builder, values[1], signature.args[1], types.intp)
    pointer = cgutils.get_item_pointer(context, builder, column_type, column, [index], wraparound=False)
    return pointer, column_type.dtype.bitwidth // 8


@intrinsic
def load_acquire(typing, column, index):
    """column[index], with everything that was written before it was stored."""

    def emit(context, builder, signature, values):
        pointer, size = _element(context, builder, signature, values)
        return builder.load_atomic(pointer, "acquire", size, typ=ir.IntType(8 * size))

    return column.dtype(column, index), emit


@intrinsic
def store_release(typing, column, index, value):
    """column[index] = value, after everything written before."""

    def emit(context, builder, signature, values):
        pointer, size = _element(context, builder, signature, values)
        number = context.cast(builder, values[2], signature.args[2], signature.args[0].dtype)
        builder.store_atomic(number, pointer, "release", size)
        return context.get_dummy_value()

    return types.void(column, index, value), emit


@intrinsic
def pointer(typing, address):
    """An address as an untyped pointer, for `numba.carray`."""

    def emit(context, builder, signature, values):
        return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.uint64), emit


@intrinsic
def load_i4(typing, address):
    """The int32 at an address (errno); nothing else reads memory through an address this way."""

    def emit(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], ir.IntType(32).as_pointer())
        return builder.load(pointer, typ=ir.IntType(32))

    return types.int32(types.uint64), emit


@intrinsic
def fence(typing):
    """What was written before is seen by others before what is read after: loads may overtake stores otherwise."""

    def emit(context, builder, signature, values):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit
