"""Leaks in other words: rows embedded by a sentence encoder, and what is said of them."""

import numpy as np

from heldout.core.progress import Progress
from heldout.data.index import Index
from heldout.data.pairs import Components
from heldout.data.paraphrases import LEAST_CONTROL, paraphrases
from heldout.data.relations import relations

_AT_ONCE = 2048  # texts


def find_paraphrases(index: Index, model: str, within: bool, progress: Progress) -> list[str]:
    """Fill in ``index.paraphrases``: training rows with rows of other parts; what to say of it.

    ``within`` also pairs training rows with one another, for whoever deals them out. Of equal
    texts the first is embedded. Disk: four bytes for each number of an embedding, in the folder of
    the index. Raises UserError where the model cannot be loaded.
    """
    from heldout.lm.accelerator import training_device
    from heldout.lm.measuring.embeddings import Encoder
    from heldout.lm.quiet import quiet_libraries

    originals = np.flatnonzero(index.first_R == np.arange(len(index)))
    with quiet_libraries(), progress.stage("embedding", total=len(originals)):
        encoder = Encoder.load(model, "--semantic ")
        encoder.model.to(training_device())
        embedded = None
        for start in range(0, len(originals), _AT_ONCE):
            texts = [index.text(row) for row in originals[start : start + _AT_ONCE].tolist()]
            found = encoder.embed(texts).numpy()
            if embedded is None:
                shape = (len(originals), found.shape[1])
                path = index.folder / "embeddings"
                embedded = np.memmap(path, dtype=np.float32, mode="w+", shape=shape)
            embedded[start : start + len(found)] = found
            progress.advance(len(found))
    assert embedded is not None, "an index has rows"
    part_R = index.part_R[originals]
    train = np.flatnonzero(part_R == 0)
    asked = np.arange(len(originals)) if within else np.flatnonzero(part_R > 0)
    with progress.stage("paraphrases"):
        result = paraphrases(embedded, train, asked, _known(index)[originals])
    if result is None:
        return [
            f"Paraphrases were not looked for: fewer than {LEAST_CONTROL} different training rows "
            "are no control."
        ]
    both = ((int(originals[a]), int(originals[b]), cosine) for a, b, cosine in result.pairs)
    index.paraphrases = sorted((min(a, b), max(a, b), round(cosine, 4)) for a, b, cosine in both)
    return [
        f"Paraphrases by {model}: two rows count whose cosine lies {result.least_margin:.2f} or "
        f"more above that of the rows around them. Of {result.num_control:,} training rows "
        f"{result.control_share:.1%} have an unrelated training row that near, so about as many "
        "held-out rows would be told by chance."
    ]


def _known(index: Index) -> np.ndarray:
    """A number for each set of rows that are known to belong together."""
    together = Components(len(index))
    first: dict[int, int] = {}
    for row in np.flatnonzero(index.group_R > 0).tolist():
        together.join(first.setdefault(int(index.group_R[row]), row), row)
    for found in relations(index):
        together.join(found.first, found.second)
    return together.label
