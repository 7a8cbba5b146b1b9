"""Gives part of a row its first values, as an intrinsic for kernels."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic


def row_reset(parts, row_bytes):
    """A kernel function `reset(row)` that writes parts, (offset, bytes), into a record of so many bytes.

    What lies between the parts is neither read nor written: another thread may have written it a moment ago.
    """

    @intrinsic
    def reset(typing, row):
        if not isinstance(row, types.Record) or row.size != row_bytes:
            raise TypingError(f"a row of {row_bytes} bytes is reset, not {row}")

        def emit(context, builder, signature, values):
            for offset, content in parts:
                kind, size = ir.ArrayType(ir.IntType(8), len(content)), ir.IntType(64)(len(content))
                there = builder.bitcast(
                    cgutils.get_record_member(builder, values[0], offset, kind), ir.IntType(8).as_pointer()
                )
                if any(content):
                    blank = cgutils.global_constant(builder, "blank_row", ir.Constant(kind, bytearray(content)))
                    cgutils.raw_memcpy(builder, there, blank, size, 1)
                else:
                    cgutils.memset(builder, there, size, 0)
            return context.get_dummy_value()

        return types.void(row), emit

    return reset
