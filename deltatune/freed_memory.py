"""Freed memory stays with the process, for the next tensor: a setting of glibc's allocator."""

from __future__ import annotations

import ctypes
import mmap
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the numbers that <malloc.h> gives these options of mallopt


def keep_freed() -> None:
    """Let glibc keep freed memory for the next tensor, its first GiB in huge pages; by default it gives the blocks of
    a training step back to the system and takes them again, page by page.

    A step of SmolLM2-135M, bf16, 8 × 64 tokens on two cores: LoRA 1.65 s before, 1.38 s after, at the same peak; full
    fine-tuning 1.95 s and 1.74 s, at a peak 7 % higher. It holds for the whole process, and cannot be undone.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):  # another C library may have no mallopt
        return
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.malloc.restype = ctypes.c_void_p
    size, huge = (1 << 30) - (1 << 20), 1 << 21
    block = libc.malloc(ctypes.c_size_t(size))  # addresses alone: no page of it is touched
    if block is not None:
        start = -(-block // huge) * huge
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(block + size - start), mmap.MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))
