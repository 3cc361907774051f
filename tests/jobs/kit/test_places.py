"""How many trainings go on at once, and with how many threads."""

import pytest
import torch

from heldout.core.recipe import Recipe
from heldout.jobs.kit.places import Machine, Needs, Places, threads_of, usable_cores

LONG = Needs(1e9, 1e4)


def plan(num_tasks=2, needs=LONG, cores=8, free=64e9, device="cpu", gpus=(), **train):
    recipe = Recipe().replace(train=train)
    return Places.plan(recipe, num_tasks, needs, Machine(device, cores, free, gpus))


@pytest.fixture
def many_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("many_threads")
def test_cores_are_shared_out():
    assert plan(2) == Places(2, 4)
    assert plan(20) == Places(8, 1)
    assert plan(1) == Places(1, 8)
    assert plan(2, cores=1) == Places(1, 1)


@pytest.mark.usefixtures("many_threads")
def test_what_the_recipe_says_counts():
    assert plan(20, threads=3) == Places(2, 3)
    assert plan(20, side_by_side=1) == Places(1, 8)
    assert plan(20, side_by_side=3) == Places(3, 2)
    assert plan(2, side_by_side=9, cores=2) == Places(2, 1)


def test_no_more_than_memory_holds():
    assert plan(20, Needs(20e9, 1e4)).most == 3
    assert plan(20, Needs(20e9, 1e4), side_by_side=20).most == 3
    assert plan(20, Needs(100e9, 1e4)).most == 1


def test_few_seconds_are_not_worth_a_process_unless_asked_for():
    assert plan(2, Needs(1e9, 5.0)).most == 1
    assert plan(2, Needs(1e9, 5.0), side_by_side=2).most == 2


@pytest.mark.usefixtures("many_threads")
def test_trials_of_a_rate_take_no_threads_from_the_training():
    def with_search(num_tasks=1, trial=LONG, **train):
        recipe = Recipe().replace(train=train)
        machine = Machine("cpu", 8, 64e9)
        return Places.plan_with_search(recipe, num_tasks, LONG, trial, machine)

    assert with_search() == Places(1, 8)
    assert with_search(threads=4) == Places(2, 4)
    assert with_search(threads=5) == Places(1, 5)
    assert with_search(threads=4, trial=Needs(1e9, 5.0)) == Places(1, 4)
    assert with_search(side_by_side=2) == Places(2, 4)
    assert with_search(side_by_side=1) == Places(1, 8)
    assert with_search(num_tasks=4) == Places(4, 2)


def test_each_gpu_has_one_training():
    assert plan(20, device="cuda", gpus=("0", "1", "3")).most == 3
    assert plan(20, device="cuda", gpus=("0",)).most == 1
    assert plan(20, device="mps").most == 1


def test_a_resumed_run_keeps_its_threads_up_to_the_cores_there_are():
    assert Places.of_environment({"threads": 1, "side_by_side": 2}) == Places(2, 1)
    assert Places.of_environment({"threads": 4096}) == Places(1, usable_cores())


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with threads_of(Places(1, before + 1)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
