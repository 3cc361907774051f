"""OCR noise: characters that scanners take for one another.

``rn`` for ``m``, ``0`` for ``O``, ``l`` for ``1``; in Chinese 日 for 曰 and 末 for 未. Each place
where a confusion is possible gets it with probability ``rate``. For text that is scanned in use.
"""

import re
from dataclasses import dataclass
from random import Random

from heldout.core.augmentation import Augmentation

SOURCE = "Rigaud et al. 2019, ICDAR post-OCR correction; van Strien et al. 2020, ICAART"
COST = "none to speak of"

_GROUPS = (
    "0 O o Q|1 l I i !|2 Z z|5 S s|6 b G|8 B 3|9 g q|c e o|u n v|f t|h b|a o|C G|D O|E F|M N|P R|"
    "U V|w vv|m rn nn|d cl|k lc|W VV|. ,|: ;|' `|"
    "日 曰 目|未 末 朱|土 士|人 入 八|大 太 犬|天 夭 夫|干 千 于|刀 力 九|贝 见|已 己 巳|"
    "田 由 甲 申|木 本 术|王 玉 主|午 牛|白 自|石 右|令 今|免 兔|乌 鸟|末 未|候 侯|拔 拨|"
    "戊 戌 戍|母 毋|间 问|元 无|广 厂|儿 几|小 少|子 于|月 用|比 北|历 厉|住 往|待 侍|"
    "清 请 情|科 料|析 折|晴 睛|具 真"
)


def _confusions() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group in _GROUPS.split("|"):
        shapes = group.split()
        for shape in shapes:
            found.setdefault(shape, []).extend(other for other in shapes if other != shape)
    return found


CONFUSIONS = _confusions()
_SHAPE = re.compile("|".join(map(re.escape, sorted(CONFUSIONS, key=len, reverse=True))))


def with_misread_characters(text: str, rate: float, draw: Random) -> str:
    """``text`` with a random share ``rate`` of its confusable characters misread."""

    def misread(match: re.Match) -> str:
        shape = match.group()
        return draw.choice(CONFUSIONS[shape]) if draw.random() < rate else shape

    return _SHAPE.sub(misread, text)


@dataclass(frozen=True)
class OcrNoise(Augmentation):
    """Each confusable character of the chosen rows is misread with probability ``rate``."""

    STRENGTH = "rate"

    rate: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")

    def text(self, content: str, draw: Random) -> str:
        return with_misread_characters(content, self.now("rate"), draw)
