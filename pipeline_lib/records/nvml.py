"""What the driver of NVIDIA's GPUs says, asked of the library that comes with it (NVML): no package is needed.

Names and units are those of NVML's reference [memory]: energy in mJ since the driver was loaded, of a whole GPU,
whoever uses it. Where there is no driver, or it does not say (parts of a GPU, before Volta), nothing is known.
"""

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
TEXT = 96  # bytes that any of its names fit into
TOO_SMALL = 7  # NVML_ERROR_INSUFFICIENT_SIZE


def version() -> str | None:
    """Version of the driver, such as 550.54.15; None where there is none."""
    found, library = ctypes.create_string_buffer(TEXT), _library()
    if library is None or library.nvmlSystemGetDriverVersion(found, TEXT):
        return None
    return found.value.decode()


def energies() -> dict[str, float]:
    """Joules that each GPU of this host has taken since its driver was loaded, by the GPU's UUID (without `GPU-`)."""
    library, found = _library(), {}
    for name, device in _devices():
        taken = ctypes.c_ulonglong()
        if library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(taken)) == 0:
            found[name] = taken.value / 1000
    return found


def processes() -> dict[str, int]:
    """How many processes compute on each GPU of this host, by its UUID: all that the driver shows to this one."""
    found: dict[str, int] = {}
    running: Any = getattr(_library(), "nvmlDeviceGetComputeRunningProcesses_v3", None)
    for name, device in _devices() if running else ():
        count = ctypes.c_uint(0)  # with room for none the answer is how many there are
        if running(device, ctypes.byref(count), None) in (0, TOO_SMALL):
            found[name] = count.value
    return found


def _devices() -> Iterator[tuple[str, ctypes.c_void_p]]:
    """UUID and handle of each GPU."""
    library, count = _library(), ctypes.c_uint()
    if library is None or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return
    for index in range(count.value):
        device, name = ctypes.c_void_p(), ctypes.create_string_buffer(TEXT)
        if (
            library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0
            and library.nvmlDeviceGetUUID(device, name, TEXT) == 0
        ):
            yield name.value.decode().removeprefix("GPU-"), device


@cache
def _library() -> Any:
    """NVML, ready to be asked; None where it is not."""
    try:
        library = ctypes.CDLL(LIBRARY)
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):
        return None
