"""Builds the fake NVML library and runs Python where it is found; used by the GPU tests."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

NAME = "libnvidia-ml.so.1"
SOURCE = Path(__file__).with_name("fake_nvml.c")
NOT_SUPPORTED = "3"
GPU_IS_LOST = "15"
DRIVER_NOT_LOADED = "9"
FUNCTION_NOT_FOUND = "13"
GPU_IS_LOST = "15"


@cache
def library() -> Path:
    """Return the folder of the library; skips the test where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the fake NVML library with")
    folder = _folder()
    options = ["-shared", "-fPIC", f"-Wl,-soname,{NAME}", "-o", str(folder / NAME), str(SOURCE)]
    subprocess.run([compiler, *options], check=True)
    return folder


@cache
def broken_library() -> Path:
    """Return the folder of a file that is no library, found before one that the machine has."""
    folder = _folder()
    (folder / NAME).write_text("no library")
    return folder


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def environment(*, fake: bool = True, **told: str) -> dict[str, str]:
    """Return the environment of a process that finds the library, or (``fake`` off) a damaged one.

    The loader looks at its library path only at start, so each needs a process of its own.
    """
    own = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {**own, "LD_LIBRARY_PATH": str(library() if fake else broken_library()), **told}
