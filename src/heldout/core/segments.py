"""Words and sentences of a text, English or Chinese, such that joining them gives it back."""

import re

CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Each Chinese character counts as a word; other letters and digits go together, as in don't.
WORD = re.compile(rf"[{CHINESE}]|(?:(?![{CHINESE}])[^\W_])+(?:['’](?:(?![{CHINESE}])[^\W_])+)*")
_END = re.compile(
    r"""(?<![A-Z])(?<!\b[A-Z]\.)(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)
    [.!?]+["'”’)\]]*(?P<space>[ \t]+)(?=["'“‘(\[]?[A-Z0-9])   # English: a capital follows
    |[。！？；]["”’』」）]*(?P<none>)(?=\S)                     # Chinese: no space is needed
    |(?P<line>[ \t]*\n\s*)(?=\S)""",
    re.VERBOSE,
)


def sentences(text: str) -> list[str]:
    """Sentence, what stands between, sentence, ..., sentence: an odd number of parts."""
    found, start = [], 0
    for match in _END.finditer(text):
        gap = next(
            match.span(name) for name in ("space", "none", "line") if match[name] is not None
        )
        found += [text[start : gap[0]], text[gap[0] : gap[1]]]
        start = gap[1]
    return [*found, text[start:]]


def paragraphs(text: str) -> list[str]:
    """Paragraph, blank lines, paragraph, ..., paragraph: an odd number of parts."""
    return re.split(r"(\n[ \t]*\n\s*)", text)
