"""The same findings on a real Ray cluster of two nodes as in this process."""

import dataclasses
import json
import time

import pytest

from english import words
from heldout.jobs.checking.check import check
from heldout.jobs.checking.ray_engine import RayEngine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WORDS = words()


@pytest.fixture
def cluster(monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000},
    )
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    ray.init(address=cluster.address, log_to_driver=False)
    yield ray
    ray.shutdown()
    cluster.shutdown()


def test_two_nodes_find_what_one_process_finds(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("heldout.data.index.BATCH_CHARACTERS", 20_000)  # several batches
    monkeypatch.setattr("heldout.data.sketch.BATCH_TOKENS", 4_000)
    texts = [" ".join(WORDS[start : start + 80]) for start in range(0, 24_000, 80)]
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts + texts[:5]))
    heldout = tmp_path / "heldout.jsonl"
    changed = texts[7].split()
    changed[10] = changed[50] = "changed"
    other = " ".join([*texts[20].split()[5:65], *reversed(WORDS[-120:])])
    heldout.write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in [texts[6], " ".join(changed), other])
    )

    def node_of_task():
        import ray

        time.sleep(0.2)
        return ray.get_runtime_context().get_node_id()

    assert len(set(RayEngine().map(node_of_task, [()] * 16))) == 2
    here = check(train, heldout=[heldout])
    there = check(train, heldout=[heldout], engine="ray")

    assert {pair.kind for pair in there.leaks} == {"exact", "near", "span"}
    assert dataclasses.replace(there, seconds=0.0) == dataclasses.replace(here, seconds=0.0)
