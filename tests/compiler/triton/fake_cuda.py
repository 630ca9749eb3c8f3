"""The CUDA driver as far as the library uses it, on host memory: what launches pass can be read back."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

SUCCESS, OUT_OF_MEMORY, NO_DEVICE, NO_BINARY, ILLEGAL_ADDRESS, OUT_OF_RESOURCES = 0, 2, 100, 209, 700, 701

ATTRIBUTES = {
    "COMPUTE_CAPABILITY_MAJOR": 9,
    "COMPUTE_CAPABILITY_MINOR": 0,
    "MULTIPROCESSOR_COUNT": 132,
    "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448,
    "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 233472,
    "MAX_REGISTERS_PER_BLOCK": 65536,
    "MAX_THREADS_PER_BLOCK": 1024,
    "L2_CACHE_SIZE": 50 * 2**20,
    "WARP_SIZE": 32,
    "CLOCK_RATE": 1980000,
    "MEMORY_CLOCK_RATE": 2619000,
    "GLOBAL_MEMORY_BUS_WIDTH": 5120,
    "MEMORY_POOLS_SUPPORTED": 1,
}


class FakeCuda:
    """Stands in for the module `cuda.bindings.driver`."""

    def __init__(self, devices: int = 1, **attributes: int):
        self.devices = devices
        self.attributes = ATTRIBUTES | attributes
        self.memory: dict[int, Any] = {}
        self.launches: list[SimpleNamespace] = []
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}
        self.CUdevice_attribute = SimpleNamespace(**{f"CU_DEVICE_ATTRIBUTE_{n}": n for n in self.attributes})
        self.CUmemPool_attribute = SimpleNamespace(CU_MEMPOOL_ATTR_RELEASE_THRESHOLD=4)
        self.CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if not name.startswith("cu") or not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            code = self.failing.get(name)
            return value(*arguments) if code is None else (code, None)

        return call

    def cuuint64_t(self, value: int) -> int:
        return value

    def cuInit(self, flags: int):
        return (SUCCESS,)

    def cuDriverGetVersion(self):
        return SUCCESS, 12080

    def cuDeviceGetCount(self):
        return SUCCESS, self.devices

    def cuDeviceGet(self, ordinal: int):
        return SUCCESS, ordinal

    def cuDeviceGetName(self, length: int, handle: int):
        return SUCCESS, b"Fake GPU\0\0"

    def cuDeviceTotalMem(self, handle: int):
        return SUCCESS, 80 * 2**30

    def cuDeviceGetAttribute(self, attribute: str, handle: int):
        return SUCCESS, self.attributes[attribute]

    def cuDevicePrimaryCtxRetain(self, handle: int):
        return SUCCESS, f"context {handle}"

    def cuCtxSetCurrent(self, context: str):
        return (SUCCESS,)

    def cuCtxSynchronize(self):
        return (SUCCESS,)

    def cuDeviceGetDefaultMemPool(self, handle: int):
        return SUCCESS, "pool"

    def cuMemPoolSetAttribute(self, pool: str, attribute: int, value: int):
        return (SUCCESS,)

    def cuMemGetInfo(self):
        return SUCCESS, 70 * 2**30, 80 * 2**30

    def cuMemAlloc(self, size: int):
        block = ctypes.create_string_buffer(size)
        address = ctypes.addressof(block)
        self.memory[address] = block
        return SUCCESS, address

    def cuMemAllocAsync(self, size: int, stream: int):
        return FakeCuda.cuMemAlloc(self, size)

    def cuMemFree(self, address: int):
        del self.memory[address]
        return (SUCCESS,)

    def cuMemFreeAsync(self, address: int, stream: int):
        return FakeCuda.cuMemFree(self, address)

    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int):
        ctypes.memmove(target, source, size)
        return (SUCCESS,)

    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int):
        ctypes.memmove(target, source, size)
        return (SUCCESS,)

    def cuMemsetD8Async(self, target: int, value: int, size: int, stream: int):
        ctypes.memset(target, value, size)
        return (SUCCESS,)

    def cuStreamCreate(self, flags: int):
        return SUCCESS, 77

    def cuStreamSynchronize(self, stream: int):
        return (SUCCESS,)

    def cuStreamDestroy(self, stream: int):
        return (SUCCESS,)

    def cuEventCreate(self, flags: int):
        return SUCCESS, object()

    def cuEventDestroy(self, event: object):
        return (SUCCESS,)

    def cuEventRecord(self, event: object, stream: int):
        return (SUCCESS,)

    def cuEventSynchronize(self, event: object):
        return (SUCCESS,)

    def cuEventElapsedTime(self, earlier: object, later: object):
        return SUCCESS, 1.25

    def cuModuleLoadData(self, image: bytes):
        return SUCCESS, image

    def cuModuleGetFunction(self, module: bytes, name: bytes):
        return SUCCESS, name.decode()

    def cuFuncSetAttribute(self, function: str, attribute: int, value: int):
        self.asked_for = (function, attribute, value)
        return (SUCCESS,)

    def cuLaunchKernel(self, function, x, y, z, bx, by, bz, shared, stream, parameters, extra):
        self._record(function, (x, y, z), (bx, by, bz), shared, stream, parameters)
        return (SUCCESS,)

    def cuLaunchCooperativeKernel(self, function, x, y, z, bx, by, bz, shared, stream, parameters):
        self._record(function, (x, y, z), (bx, by, bz), shared, stream, parameters)
        self.launches[-1].cooperative = True
        return (SUCCESS,)

    def _record(self, function, grid, block, shared, stream, parameters):
        def read(index: int, kind: Any) -> Any:
            """A parameter, found as the driver finds it: through the array of pointers."""
            pointers = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))
            return ctypes.cast(pointers[index], ctypes.POINTER(kind))[0]

        slots = [read(i, ctypes.c_uint64) for i in range(self.parameter_count)]
        self.launches.append(
            SimpleNamespace(
                function=function, grid=grid, block=block, shared=shared, stream=stream, slots=slots
            )
        )

    parameter_count = 0

    def cuGetErrorName(self, code: int):
        return SUCCESS, f"CUDA_ERROR_{code}".encode()

    def cuGetErrorString(self, code: int):
        return SUCCESS, b"what went wrong"
