"""Versions outside of the declared ones are told by name; others and what is absent are not."""

from importlib import metadata

import pytest

from heldout.core.environment import versions_outside

DECLARED = [
    "transformers<6,>=5.10.1",
    "torch<3,>=2.6",
    "rich>=13",
    'trl<2,>=0.29.1; extra == "dev"',
]


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ({"transformers": "5.10.1", "torch": "2.13.0+cpu", "rich": "1"}, []),
        ({"transformers": "5.25.0.dev0", "torch": "2.6.0", "trl": "0.29.1"}, []),
        ({"transformers": "6.0.0", "torch": "2.6.0"}, ["transformers 6.0.0 (>=5.10.1,<6)"]),
        (
            {"transformers": "5.9.0", "torch": "3.0.0+cu140", "trl": "2.0.0"},
            [
                "transformers 5.9.0 (>=5.10.1,<6)",
                "torch 3.0.0+cu140 (>=2.6,<3)",
                "trl 2.0.0 (>=0.29.1,<2)",
            ],
        ),
    ],
)
def test_what_is_outside_is_told(monkeypatch, installed, told):
    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "requires", lambda name: DECLARED)
    monkeypatch.setattr(metadata, "version", version)
    assert versions_outside() == told


def test_sources_without_an_installation_tell_nothing(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert versions_outside() == []
