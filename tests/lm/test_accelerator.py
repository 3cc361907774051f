"""Devices of any maker, and systems without the modules of Unix."""

import subprocess
import sys
import types

import pytest
import torch

from heldout.lm import accelerator
from heldout.lm.accelerator import (
    free_bytes,
    peak_bytes,
    set_device_random_state,
    trained_precision,
    training_device,
)
from heldout.lm.undisturbed import RandomState, random_state, replayed
from heldout.training.preflight import memory_available

GB = 10**9


class Device(types.ModuleType):
    """What torch's module of a device offers, as far as it is used."""

    def __init__(self, kind, **functions):
        super().__init__(kind)
        self.states = [torch.tensor([7])]
        for name, function in functions.items():
            setattr(self, name, function)

    def get_rng_state(self, device=None):
        assert device is None or self.__name__ != "mps", "takes none"
        return self.states[-1]

    def set_rng_state(self, state, device=None):
        assert device is None or self.__name__ != "mps", "takes none"
        self.states.append(state)


DEVICES = {
    "cuda": Device("cuda", mem_get_info=lambda device: (3 * GB, 9 * GB)),
    "xpu": Device(
        "xpu", mem_get_info=lambda device: (5 * GB, 9 * GB), max_memory_allocated=lambda: 2 * GB
    ),
    "mps": Device(
        "mps",
        recommended_max_memory=lambda: GB,
        driver_allocated_memory=lambda: GB // 4,
    ),
}


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """A machine whose accelerator is another; its module is ours, all that asks it is real."""
    kind = torch.device(request.param)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: kind)
    monkeypatch.setattr(torch, "get_device_module", lambda asked=None: DEVICES[asked])
    return request.param


def test_the_accelerator_is_what_trains_and_its_memory_is_checked(device):
    assert training_device() == device
    free = {"cuda": 3 * GB, "xpu": 5 * GB, "mps": 3 * GB // 4}[device]
    assert memory_available() == free_bytes(device) == free
    if device == "xpu":
        assert peak_bytes() == 2 * GB
    if device != "cuda":
        assert trained_precision("auto") == ("bfloat16" if device == "xpu" else "float32")


def test_random_numbers_of_the_accelerator_are_replayed(device):
    own = DEVICES[device]
    state = random_state(torch.device(device))
    assert torch.equal(state.accelerator, own.get_rng_state())
    own.states.append(torch.tensor([8]))
    with replayed(state):
        assert int(own.get_rng_state()) == 7
    assert int(own.get_rng_state()) == 8
    set_device_random_state(torch.device(device), torch.tensor([7]))


def test_random_numbers_of_the_cpu_are_replayed():
    state = random_state(torch.device("cpu"))
    assert isinstance(state, RandomState)
    assert state.accelerator is None
    first = torch.rand(3)
    after = torch.rand(3)
    with replayed(state):
        assert torch.equal(torch.rand(3), first)
    with replayed(state):
        torch.rand(3)
        assert torch.equal(torch.rand(3), after)


def test_without_an_accelerator_the_cpu_trains(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert training_device() == "cpu"
    assert 10**7 < free_bytes("cpu") < 10**14
    asked = ("auto", "float32", "bfloat16")
    assert [trained_precision(each) for each in asked] == ["float32", "float32", "bfloat16"]


def test_the_peak_is_what_was_held():
    before = peak_bytes()
    held = bytearray(300_000_000)
    assert peak_bytes() > before - len(held) + 200_000_000
    assert 10**7 < peak_bytes() < 10**12


WITHOUT_UNIX = """
import importlib, pkgutil, sys
import accelerate, datasets, peft, psutil, torch, transformers  # whose Linux parts need them
for name in ("resource", "fcntl", "termios", "pwd", "grp", "syslog"):
    sys.modules[name] = None
import heldout
for module in pkgutil.walk_packages(heldout.__path__, "heldout."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import os
del os.sysconf
if hasattr(os, "sched_getaffinity"):
    del os.sched_getaffinity
from heldout.core.environment import environment
from heldout.core.interrupt import stop_on_interrupt
from heldout.lm.accelerator import free_bytes
assert environment()["hardware"] and free_bytes("cpu") > 0
with stop_on_interrupt() as request:
    assert not request
print("all imported")
"""


@pytest.mark.slow
def test_everything_imports_where_the_modules_of_unix_are_missing():
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_UNIX]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("all imported"), done.stderr[-2000:]


def test_the_peak_on_windows_is_that_of_its_working_set(monkeypatch):
    process = types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(peak_wset=GB))
    monkeypatch.setattr(accelerator.os, "name", "nt")
    monkeypatch.setattr(accelerator.psutil, "Process", lambda: process)
    assert peak_bytes() == GB
