"""Which encoding a file is read in, and names of columns in Chinese."""

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection, load_recipe
from heldout.data.columns import read_rows
from heldout.data.encoding import encoding_of
from heldout.data.read import read_table
from heldout.data.stream import RowStream

CHINESE = "船队在清晨离开港口，沿着海岸向北航行。三天以后，他们看见了远处的灯塔，便把帆收了起来。"
QUESTION, ANSWER = "船队什么时候离开港口？", "清晨，天还没有亮。"
KOREAN = (
    "배는 새벽에 항구를 떠나 해안을 따라 북쪽으로 항해했다. 사흘 뒤에 그들은 멀리 등대를 보았다."
)
JAPANESE = "船は夜明けに港を出て、海岸に沿って北へ進みました。三日後に、遠くの灯台が見えました。"
RUSSIAN = "Корабль вышел из гавани на рассвете и пошёл вдоль берега на север. "
FRENCH = "Le navire a quitté le port à l'aube, puis il a longé la côte jusqu'à l'île."


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (CHINESE, "gb18030", "gb18030"),
        (CHINESE, "gbk", "gb18030"),
        (CHINESE[:9], "gb18030", "gb18030"),
        (f"text\n{CHINESE}\n" + "plain words\n" * 300, "gb18030", "gb18030"),
        (CHINESE, "utf-8", "utf-8"),
        (FRENCH, "cp1252", "cp1252"),
        (FRENCH, "utf-8", "utf-8"),
        ("plain", "ascii", "utf-8"),
        (CHINESE, "utf-16", "utf-16"),
        (FRENCH, "utf-8-sig", "utf-8-sig"),
        (FRENCH, "utf-32", "utf-32"),
        # What is none of these stays UTF-8, and its rows are faults.
        (KOREAN, "euc-kr", "utf-8"),
        (JAPANESE, "euc-jp", "utf-8"),
        (JAPANESE, "shift-jis", "utf-8"),
        (RUSSIAN, "cp1251", "utf-8"),
        (RUSSIAN, "koi8-r", "utf-8"),
    ],
)
def test_encodings(text, encoding, found):
    assert encoding_of(text.encode(encoding), only_unicode=False) == found


def test_a_sample_that_ends_within_a_character():
    for encoding in ("utf-8", "gb18030"):
        assert encoding_of(CHINESE.encode(encoding)[:-1], only_unicode=False) == encoding


def test_a_few_broken_bytes_do_not_change_the_encoding():
    broken = CHINESE.encode() + b"\xff\xfe" + CHINESE.encode()
    assert encoding_of(broken, only_unicode=False) == "utf-8"


@pytest.mark.parametrize(
    ("header", "roles"),
    [
        ("问题,回答", ("prompt", "completion")),
        ("指令,输入,输出", ("prompt", "completion")),
        ("正文", ("text",)),
    ],
)
def test_csv_as_excel_writes_it_in_chinese(tmp_path, header, roles):
    path = tmp_path / "rows.csv"
    cells = {"问题": QUESTION, "回答": ANSWER, "指令": QUESTION, "输入": "", "输出": ANSWER}
    row = ",".join(cells.get(name, CHINESE) for name in header.split(","))
    path.write_bytes(f"{header}\r\n{row}\r\n".encode("gb18030"))
    read = read_rows(path)
    assert tuple(m["role"] for m in read.rows[0].messages) == roles
    assert read.rows[0].messages[-1]["content"] == (CHINESE if header == "正文" else ANSWER)
    assert read.notes == (
        f"{path} is not UTF-8 and was read as GB18030 (Chinese, as Excel writes it); data.encoding "
        "overrules.",
    )
    stream = RowStream(path)
    assert [item.row for item in stream] == read.rows
    assert tuple(stream.notes()) == read.notes


def test_roles_in_chinese(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"messages": [{"role": "系统", "content": "简短。"}, {"role": "用户", "content": "谁？"}, '
        '{"role": "助手", "content": "船长。"}]}\n'
    )
    assert [m["role"] for m in read_rows(path).rows[0].messages] == ["system", "user", "assistant"]


def test_the_user_names_the_encoding(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(f"text\n{KOREAN}\n".encode("euc-kr"))
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert str(caught.value) == (
        f"{path} line 2: byte 0xb9 is not UTF-8. Save the file as UTF-8, or name its encoding: "
        "--set data.encoding=NAME."
    )
    chosen = load_recipe("default", ["data.encoding=euc-kr"]).data
    assert read_table(path, chosen).records[0].fields == {"text": KOREAN}
    assert read_table(path, chosen).notes == ()
    with pytest.raises(UserError, match=r"data\.encoding must be an encoding of text .* got 'gb'"):
        read_table(path, DataSection(encoding="gb"))
    with pytest.raises(UserError, match="got 'base64'"):
        read_table(path, DataSection(encoding="base64"))


def test_western_csv_is_read_and_said_and_json_is_not(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(f'text\n"{FRENCH}"\n'.encode("cp1252"))
    assert read_table(path).records[0].fields["text"] == FRENCH
    assert "Windows-1252" in read_table(path).notes[0]
    lines = tmp_path / "rows.jsonl"
    lines.write_bytes(b'{"text": "plain"}\n{"text": "caf\xe9"}\n')
    assert [item.fault is None for item in RowStream(lines)] == [True, False]
