"""The stages of an index on a Ray cluster, more than one machine if it has them.

Needs ``pip install heldout[ray]``. Joins the cluster of RAY_ADDRESS, or starts one on this machine.
The driver reads the rows and holds the index on its disk; batches of texts, bands and ranges of
hashes go to the workers, which need heldout and not the data.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from heldout.core.errors import UserError


class RayEngine:
    """Two tasks a processor are under way at most, so that memory stays bounded."""

    def __init__(self) -> None:
        try:
            import ray
        except ImportError:
            raise UserError("--engine ray needs Ray: pip install 'heldout[ray]'.") from None
        self.ray = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
        self.most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def map(self, function: Callable[..., Any], items: Iterable[tuple]) -> Iterator[Any]:
        """Results in the order of the items."""
        remote = self.ray.remote(function).options(scheduling_strategy="SPREAD")
        under_way: deque = deque()
        for item in items:
            under_way.append(remote.remote(*item))
            if len(under_way) >= self.most:
                yield self.ray.get(under_way.popleft())
        while under_way:
            yield self.ray.get(under_way.popleft())

    def share(self, value: Any) -> Any:
        """Put once into the object store."""
        return self.ray.put(value)
