"""Keyboard noise: wrong keys, as fingers hit them.

A letter or digit becomes one beside it on a QWERTY keyboard. Chinese is typed by sound, so a
character becomes another of the same sound that is often taken for it (在 and 再). Letters and
characters that are not in the tables stay.
"""

from dataclasses import dataclass
from random import Random

from heldout.core.augmentation import Augmentation

SOURCE = "Belinkov & Bisk 2018, arXiv 1711.02173; homophones: Liu et al. 2011, ACM TALIP 10(2)"
COST = "none to speak of"

_KEYS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_SHIFT = (0.0, 0.5, 0.75, 1.25)  # of each row to the right, in keys
_SAME_SOUND = (
    "的地得 在再 他她它 做作坐 那哪 以已 和合何 是事市式 有又右 会汇 时实石 为位 "
    "近进 长常 像象向 知之只 经精 意义议 里理力 成城程 公工功 名明 带代 课刻客 "
    "密秘 历立利 形型行 性姓 须需 元员原圆 办半 报抱 必毕 变便 查察 场厂 达答 "
    "当挡 到道 第弟 订定 度渡 反返 份分 复副 该改 高告 关观 管官 后候 画话化 "
    "计记纪 家加 检简 建见件 交教 结解 界届 今金 决绝 量亮 零灵领 没每 内那 "
    "能农 平评 期其起 前钱 清情请 全权 然燃 认任 如入 上尚 少稍 设社 身深 生声 "
    "师诗 使史始 手首收 书输 数树 虽随 体提 天田 通同 头投 完玩 王往 未味 文闻 "
    "问稳 无五 物务 下夏 先现线 想响 小校 些写 学雪 研言 要药 业叶 一医 因音 "
    "应英 用永 由油 于与 语雨 云运 张章 这着 真针 正证 中种 重众 主住 转专 "
    "子字 自字"
)


def _neighbors() -> dict[str, str]:
    place = {
        key: (row, column + _SHIFT[row])
        for row, keys in enumerate(_KEYS)
        for column, key in enumerate(keys)
    }
    found = {
        key: "".join(
            other
            for other, (y, x) in place.items()
            if other != key and abs(y - place[key][0]) <= 1 and abs(x - place[key][1]) <= 1
        )
        for key in place
    }
    found |= {key.upper(): near.upper() for key, near in found.items() if key.isalpha()}
    for group in _SAME_SOUND.split():
        for character in group:
            found[character] = found.get(character, "") + group.replace(character, "")
    return found


NEIGHBORS = _neighbors()


def with_wrong_keys(text: str, rate: float, draw: Random) -> str:
    """``text`` with a random share ``rate`` of its known characters mistyped."""
    return "".join(
        draw.choice(NEIGHBORS[character])
        if character in NEIGHBORS and draw.random() < rate
        else character
        for character in text
    )


@dataclass(frozen=True)
class KeyboardNoise(Augmentation):
    """Each character of the chosen rows is mistyped with probability ``rate``."""

    STRENGTH = "rate"

    rate: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")

    def text(self, content: str, draw: Random) -> str:
        return with_wrong_keys(content, self.now("rate"), draw)
