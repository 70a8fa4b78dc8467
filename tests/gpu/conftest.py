"""Kernels for GPUs: on a GPU where there is one, else as Python by Triton's interpreter, in a process of its own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

from pluria.numbers import gpu, kernel

collect_ignore = ["compiling.py"]
"""A script that imports Triton, started by a test; doctests are looked for in every module."""


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels run; the test is skipped where they cannot."""
    pytest.importorskip("triton", reason="the tests of GPU kernels need Triton; `make triton` installs it")
    if gpu.interpreting():
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    pytest.skip("there is no GPU, and Triton's interpreter is off; `make triton` switches it on")


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """A context in which torch alone rounds."""

    @contextmanager
    def context() -> Iterator[None]:
        with monkeypatch.context() as patch:
            for fast in (kernel, gpu):
                patch.setattr(fast, "available", lambda device: False)
            yield

    return context
