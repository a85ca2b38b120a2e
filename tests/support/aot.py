"""Compile the shipped kernels for a GPU that is not there, and say what each costs.

    python -m tests.support.aot [NAME…]

A kernel's own launcher is called on meta tensors while a recorder stands in for the kernel; what it would have been
launched with is compiled to a cubin, and the cubin's registers, stack, shared memory and instructions are read with
the tools that ship inside Triton. Prints one JSON object a line, for the jobs whose name starts with
one of those given, or for all.

Legend: M rows, N outputs, K inputs, R rank, G adapters.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from deltatune.kernels import backward, grouped, products, shrink
from deltatune.kernels.routes import Pack, Routes
from deltatune.kernels.tiles import HALF, SINGLE, TILES, Tile

BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SIZES = 8192, 4096, 4096  # M, N, K
TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
UNMASKED = ("bwd_s", "linear_expand")
DTYPES = {HALF: ["bfloat16", "float16"], SINGLE: ["float32"]}


class Job(NamedTuple):
    kernel: str
    arch: int
    dtype: str
    tile: Tile
    R: int
    masked: bool
    size: int | None = None  # every side has it in place of M, N and K


class Recorder:
    """Stands in for a kernel: keeps the arguments of its launch."""

    def __init__(self, kernel: Any):
        self.kernel = kernel

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return self.keep

    def keep(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


def launch(job: Job) -> Recorder:
    """The launch that the library makes for this job."""
    dtype, tile, R, G = getattr(torch, job.dtype), job.tile, job.R, 8
    M, N, K = SIZES if job.size is None else (job.size,) * 3

    def empty(*size: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device="meta")

    x, dY, W, b, A, B, S = empty(M, K), empty(M, N), empty(N, K), empty(N), empty(R, K), empty(N, R), empty(M, R)
    seed = torch.empty((), dtype=torch.int64, device="meta") if job.masked else None
    whole, numbers = empty(G, dtype=torch.int32), empty(G, dtype=torch.float32)
    of, packed = Pack(whole, whole, numbers, numbers, whole), empty(G * R, K)
    to = Routes(empty(M, dtype=torch.int32), empty(M // 32 + G, 3, dtype=torch.int32), empty(G, 2, dtype=torch.int32))
    t = 1 if job.size == 1 else 6554 if job.masked else 0
    calls: dict[str, tuple[Any, str, Callable[[], Any]]] = {
        "shrink": (shrink, "shrink_kernel", lambda: shrink.shrink(x, A, tile, seed, t)),
        "bwd_s": (backward, "bwd_s_kernel", lambda: backward.bwd_s(dY, S, B, 2.0, tile)),
        "bwd_a": (backward, "bwd_a_kernel", lambda: backward.bwd_a(S, x, tile, seed, t)),
        "linear_expand": (products, "product_kernel", lambda: products.linear_expand(x, W, b, S, B, 2.0, tile)),
        "bwd_dx": (products, "product_kernel", lambda: products.bwd_dx(dY, W, S, A, tile, seed, t)),
        "low_rank": (products, "low_rank_kernel", lambda: products.low_rank(S, A, tile, seed, t)),
        "gather_shrink": (
            grouped, "gather_shrink_kernel",
            lambda: grouped.gather_shrink(x, packed, numbers, of, to, R, tile, seed),
        ),
        "gather_expand": (
            grouped, "gather_expand_kernel", lambda: grouped.gather_expand(x, S, packed, numbers, of, to, tile, seed)
        ),
        "gather_outer": (
            grouped, "gather_outer_kernel",
            lambda: grouped.gather_outer(S, x, G * R, numbers, of, to, tile, seed),
        ),
    }  # fmt: skip
    module, name, call = calls[job.kernel]
    kernel = getattr(module, name)
    recorder = Recorder(kernel)
    setattr(module, name, recorder)
    try:
        call()
    finally:
        setattr(module, name, kernel)
    return recorder


def compile_job(job: Job) -> Any:
    """The compiled kernel, specialized as Triton specializes at a launch: ones, None and multiples of 16."""
    recorder = launch(job)
    kernel, options = recorder.kernel, dict(recorder.kwargs)
    settings = {"num_warps": options.pop("num_warps"), "num_stages": options.pop("num_stages")}
    given = dict(zip(kernel.arg_names, recorder.args)) | options
    signature, constants, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        value = given[name]
        if isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        elif name in options or value is None or (value == 1 and isinstance(value, int) and specialized(kernel, name)):
            signature[name] = "constexpr"
            constants[name] = value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if value % 16 == 0 and specialized(kernel, name):
                attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", job.arch, 32), options=settings)


def specialized(kernel: Any, name: str) -> bool:
    return name not in (kernel.do_not_specialize or ())


def measure(job: Job) -> dict[str, Any]:
    """What the job's cubin costs: registers, stack and shared bytes, local loads and stores, HGMMA instructions."""
    start = time.perf_counter()
    compiled = compile_job(job)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (tool(flag, file.name) for flag in ("--dump-resource-usage", "-sass"))
    return {
        **job._asdict(),
        "registers": int(re.findall(r"\bREG:(\d+)", usage)[0]),
        "stack_bytes": int(re.findall(r"\bSTACK:(\d+)", usage)[0]),
        "shared_bytes": compiled.metadata.shared,
        "local_accesses": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "hgmma": len(re.findall(r"\bHGMMA\b", code)),
        "hmma": len(re.findall(r"\bHMMA\b", code)),
        "compile_s": round(time.perf_counter() - start, 1),
    }


def tool(flag: str, path: str) -> str:
    return subprocess.run([BIN / "cuobjdump", flag, path], capture_output=True, text=True, check=True).stdout


def shipped() -> Iterator[Job]:
    """Every shipped tile, at a small and a large rank, with a mask and without where the kernel knows one."""
    for arch, kernels in TILES.items():
        for kernel, kinds in kernels.items():
            for kind, found in kinds.items():
                for tile in found:
                    for dtype in DTYPES[kind]:
                        for R in (16, 64):
                            for masked in (False,) if kernel in UNMASKED else (False, True):
                                yield Job(kernel, arch, dtype, tile, R, masked)


def ones() -> Iterator[Job]:
    """Every side 1 and a rank of 1, which Triton turns into constants: code that only passes for variables fails."""
    for kernel, kinds in TILES[90].items():
        yield Job(kernel, 90, "bfloat16", kinds[HALF][0], 1, kernel not in UNMASKED, size=1)


def name(job: Job) -> str:
    """kernel/arch/dtype/MxNxK/R/dropout or p0, or ones/kernel."""
    if job.size is not None:
        return f"ones/{job.kernel}"
    sizes = "x".join(str(size) for size in job.tile[:3])
    return f"{job.kernel}/{job.arch}/{job.dtype}/{sizes}/{job.R}/{'dropout' if job.masked else 'p0'}"


if __name__ == "__main__":
    for job in (*shipped(), *ones()):
        if not sys.argv[1:] or name(job).startswith(tuple(sys.argv[1:])):
            print(json.dumps(measure(job)), flush=True)
