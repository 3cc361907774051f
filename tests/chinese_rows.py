"""Questions and answers in Chinese, made up by rule: no two alike, and no space between words."""

import random

PEOPLE = [
    "卖豆腐的老人",
    "修钟表的师傅",
    "邮局的姑娘",
    "渡口的船夫",
    "学堂的先生",
    "药铺的伙计",
    "放羊的孩子",
]
TOWNS = ["青石镇", "白水村", "柳河湾", "松岭", "望海城", "梅山脚下", "竹溪", "旧州"]
TIMES = ["清晨", "傍晚", "下雪天", "立春那日", "月圆之夜", "雨停以后", "赶集的日子", "秋收时节"]
DEEDS = ["点灯", "煮茶", "写信", "磨刀", "数星星", "补网", "晒药草", "讲故事", "喂马", "听雨"]
THINGS = ["铜壶", "竹篮", "旧书", "木船", "风筝", "棉被", "算盘", "陶罐", "铁锅", "纸伞"]
REASONS = ["怕客人迷路", "想起了父亲", "要赶在天黑前回家", "答应过邻居", "喜欢安静", "省下几文钱"]
ENDS = [
    "大家都说他做得对",
    "后来这事传遍了全镇",
    "第二天又下起雨来",
    "谁也不觉得奇怪",
    "那只猫一直看着",
]


def pair(draw: random.Random) -> tuple[str, str]:
    """A question and its answer."""
    who, town, time, deed, thing, reason, end = map(
        draw.choice, (PEOPLE, TOWNS, TIMES, DEEDS, THINGS, REASONS, ENDS)
    )
    number = draw.randrange(2, 99)
    question = draw.choice(
        (
            f"{town}{who}为什么总在{time}{deed}？",
            f"{time}，{who}带着{thing}去了哪里？",
            f"请问{town}的{thing}是谁的，值多少钱？",
            f"讲一讲{who}和{thing}的事吧。",
        )
    )
    answer = draw.choice(
        (
            f"因为{who}{reason}，所以{time}就带上{thing}去{town}{deed}。{end}。",
            f"那{thing}花了{number}文钱，{who}买来放在{town}的家里……{end}。",
            f"{town}离这里{number}里路，{who}走了一整天，一边走一边{deed}。{end}。",
        )
    )
    return question, answer


def pairs(num: int, seed: int = 0) -> list[tuple[str, str]]:
    """Distinct questions, each with its answer."""
    draw, found = random.Random(seed), {}
    while len(found) < num:
        question, answer = pair(draw)
        found.setdefault(question, answer)
    return list(found.items())
