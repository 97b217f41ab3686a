"""NVML, by a library of our own that has its functions; a machine without a driver knows nothing."""

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_lib.records import nvml

SOURCE = r"""
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "550.54.15", length); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) { *device = (void *)(0x700000000000ul + i); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    strncpy(text, "GPU-0a-0", length);
    text[7] += (int)((unsigned long)device - 0x700000000000ul);
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
    unsigned long i = (unsigned long)device - 0x700000000000ul;
    *energy = 10000000000ull * (i + 1) + 500;
    return i == 2 ? 3 : 0; /* NVML_ERROR_NOT_SUPPORTED */
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *infos) {
    unsigned long i = (unsigned long)device - 0x700000000000ul;
    if (i == 2) return 4; /* NVML_ERROR_NO_PERMISSION */
    *count = 2 * i;
    return *count ? 7 : 0; /* NVML_ERROR_INSUFFICIENT_SIZE */
}
"""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    nvml._library.cache_clear()
    yield
    nvml._library.cache_clear()


def test_driver_and_energy_in_joules_of_each_gpu_that_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles and counters of more than 32 bits; the third GPU does not say what it took."""
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler here")
    (tmp_path / "fake.c").write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "fake.so", tmp_path / "fake.c"], check=True)
    monkeypatch.setattr(nvml, "LIBRARY", str(tmp_path / "fake.so"))
    assert nvml.version() == "550.54.15"
    assert nvml.energies() == {"0a-0": 10_000_000.5, "0a-1": 20_000_000.5}
    assert nvml.processes() == {"0a-0": 0, "0a-1": 2}


def test_without_a_driver_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnothing.so.1")
    assert nvml.version() is None
    assert nvml.energies() == nvml.processes() == {}


def test_a_library_that_cannot_start_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        nvmlInit_v2 = staticmethod(lambda: 9)  # NVML_ERROR_DRIVER_NOT_LOADED

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Broken)
    assert nvml.energies() == {}
