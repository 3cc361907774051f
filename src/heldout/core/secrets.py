"""Passwords and tokens, taken out of what is kept for others to read."""

import re
from collections.abc import Sequence

HIDDEN = "***"

_NAME = (
    r"[\w.-]*(?:token|secret|pass(?:word|wd|phrase)?|credentials?|authorization|signature"
    r"|(?:api|access|secret|private|auth|account)[_-]?key)"
)
_NAMED = re.compile(rf"(?i)(?<![\w.-])({_NAME}[\"']?\s*[=:]\s*)(?:bearer\s+)?[^\s&\"']+")
_OPTION = re.compile(rf"(?i)-{{1,2}}{_NAME}")
_USER_OF_URL = re.compile(r"(?<=://)[^/\s@]+(?=@)")
# What Hugging Face, OpenAI, GitHub, GitLab, Slack, Amazon and Google begin them with; JSON web
# tokens.
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_|api_org_|sk-|gh[oprsu]_|github_pat_|glpat-|xox[abeprs]-|AKIA|ASIA|AIza"
    r"|eyJ)[\w.-]{12,}"
)


def without_secrets(text: str) -> str:
    """``***`` in place of tokens, of values of what is named so, and of the user in addresses."""
    for pattern, shown in ((_NAMED, rf"\1{HIDDEN}"), (_USER_OF_URL, HIDDEN), (_KNOWN, HIDDEN)):
        text = pattern.sub(shown, text)
    return text


def arguments_without_secrets(arguments: Sequence[str]) -> list[str]:
    """As ``without_secrets``, and without what follows an option of such a name."""
    found, is_secret = [], False
    for argument in arguments:
        found.append(HIDDEN if is_secret else without_secrets(argument))
        is_secret = _OPTION.fullmatch(argument) is not None
    return found
