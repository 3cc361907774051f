"""Rows that tests of the main job share."""

import json

import pytest


@pytest.fixture(scope="session")
def data(english_text, tmp_path_factory):
    """160 paragraphs of prose, one group each."""
    path = tmp_path_factory.mktemp("data") / "prose.jsonl"
    found = [" ".join(part.split()) for part in english_text.split("\n\n")]
    texts = [text[:120] for text in found if len(text) > 100][:160]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return str(path)
