"""What a page shows beside figures names the rows that it is about."""

import numpy as np

from heldout.core.pass_statistics import Generations
from heldout.core.token_size import ENGLISH_TOKENS
from heldout.core.verbatim import Corpora
from heldout.jobs.evidence.shown import samples_of


def test_a_copy_names_its_row_by_index_not_by_the_number_of_its_document(tiny_tokenizer):
    text = "The lighthouse keeper of Skerryvore counts seventeen grey seals at dawn."
    ids = np.array(tiny_tokenizer(text).input_ids, dtype=np.int32)
    other = np.array(tiny_tokenizer("Nothing of the kind.").input_ids, dtype=np.int32)
    # Row 31 has two examples, row 40 is the third document.
    searched = Corpora.build([(31, other), (31, other), (40, ids)], [(2, other)])
    written = Generations(
        prompts=["A"],
        texts=[text],
        references=[""],
        token_ids=[ids],
        reference_ids=[other],
        ended=np.array([True]),
        groups=np.array(["a"]),
        row_index=np.array([0]),
    )
    (found,) = samples_of({("best", "test"): written}, searched, tiny_tokenizer, ENGLISH_TOKENS)
    assert found.source_row == 40
    assert found.copied == (0, len(text))
