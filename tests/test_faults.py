"""What is the machine's and what is the code's, by the words of torch, CUDA and operating systems."""

import errno
import os

import pytest
import torch

from pipeline_lib import faults

GPU = [  # as torch and NCCL say it
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nCompile with TORCH_USE_CUDA_DSA"),
    torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("NCCL error in: NCCLUtils.cpp:94, unhandled system error (run with NCCL_DEBUG=INFO for details)"),
]
BUGS = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("CUDA error: operation not permitted when stream is capturing"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
    ValueError("CUDA error: says no GPU, but a sentence"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PermissionError(errno.EACCES, "Permission denied"),
    KeyError("x"),
]


@pytest.mark.parametrize("error", GPU, ids=str)
def test_a_gpu_that_fails_is_named_with_its_host(error: RuntimeError) -> None:
    said = faults.of_machine(error) or ""
    assert said.startswith(f"a GPU of {os.uname().nodename} or its connection failed ({str(error).splitlines()[0]})")


@pytest.mark.parametrize("error", BUGS, ids=str)
def test_what_code_does_wrong_is_not_the_machine(error: Exception) -> None:
    """An illegal access or an assert on the GPU is likelier a bug, and would come again at every attempt."""
    assert faults.of_machine(error) is None


@pytest.mark.parametrize("name", ["ESTALE", "EIO", "ETIMEDOUT", "EREMOTEIO", "ENODEV", "ESHUTDOWN"])
def test_a_file_system_that_fails_is_the_machine(name: str) -> None:
    number = getattr(errno, name)
    assert "file system or a device of" in (faults.of_machine(OSError(number, os.strerror(number))) or "")


def test_memory_and_full_disks_say_what_to_give() -> None:
    assert "runtime.memory_mb" in (faults.of_machine(MemoryError()) or "")
    assert "runtime.memory_mb" in (faults.of_machine(OSError(errno.ENOMEM, "Cannot allocate memory")) or "")
    assert "runtime.memory_mb" in (faults.of_machine(RuntimeError("DefaultCPUAllocator: can't allocate")) or "")
    assert "the disk is full" in (faults.of_machine(OSError(errno.EDQUOT, "Disk quota exceeded")) or "")


def test_what_libraries_put_over_an_error_of_the_system_does_not_hide_it() -> None:
    """C++ raises another error over it, Rust writes it into its sentence."""
    error = RuntimeError("PytorchStreamWriter failed writing file data/0")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert faults.disk_is_full(error)
    assert "file system" in (faults.of_machine(ValueError("I/O error: Input/output error (os error 5)")) or "")


def test_whose_fault_a_failing_exchange_is() -> None:
    own = [*GPU[:6], BUGS[0], RuntimeError("NCCL error in: x.cpp:9, unhandled cuda error (run with NCCL_DEBUG=INFO)")]
    assert all(map(faults.from_gpu, own))
    others = [GPU[6], RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:9"), ValueError("no store")]
    assert not any(map(faults.from_gpu, others))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_every_library_has_its_own_words_for_a_full_gpu(error: RuntimeError) -> None:
    assert faults.no_gpu_memory(error)


def test_a_kernel_that_asks_for_too_much_is_no_full_gpu_and_no_broken_one() -> None:
    error = RuntimeError("Triton Error [CUDA]: out of resource: shared memory, Required: 300000")
    assert not faults.no_gpu_memory(error)
    assert faults.of_machine(error) is None
    assert not faults.no_gpu_memory(MemoryError())
