"""Job files: what they can hold, and every mistake in them as one error that names the place."""

from __future__ import annotations

import re

import pytest

from espwire.errors import DataError, FileError
from espwire.jobs.boards import BoardSource
from espwire.jobs.job_file import Job, parse_job, read_job
from espwire.jobs.report import ReportTarget
from espwire.jobs.steps import (
    Content,
    EraseStep,
    FlashStep,
    RunStep,
    VerifyStep,
    WaitStep,
    WriteStep,
)
from espwire.jobs.variables import fill, fill_path, find_names
from espwire.jobs.wait import repeats_a_repetition

WHOLE = """
name = "thermostat"
chip = "ESP32-C3"
[variables]
product = "T1"
[boards]
file = "boards.db"
table = "units"
[report]
file = "report.csv"
fields = ["serial", "operator"]
[[step]]
do = "erase"
all = true
[[step]]
do = "erase"
at = "nvs"
[[step]]
do = "erase"
at = 0x9000
size = 0x1000
[[step]]
do = "flash"
path = "build"
encrypt = true
[[step]]
do = "write"
at = "nvs"
file = "nvs-{serial}.bin"
[[step]]
do = "write"
at = 0x9000
data = "{serial}"
size = 32
[[step]]
do = "verify"
[[step]]
do = "verify"
at = 0x9000
template = "t.txt"
size = 10
[[step]]
do = "run"
baud = 74880
[[step]]
do = "wait"
line = "ready"
fail = "panic|abort"
seconds = 2
"""


def parse(text: str) -> Job:
    return parse_job(text.encode(), "/jobs/x.toml")


def test_a_job_with_every_key() -> None:
    job = parse(WHOLE)
    assert (job.name, job.chip, job.folder) == ("thermostat", "esp32c3", "/jobs")
    assert job.variables == {"product": "T1"}
    assert job.boards == BoardSource("/jobs/boards.db", "units")
    assert job.report == ReportTarget("/jobs/report.csv", ("serial", "operator"))
    *others, wait = job.steps
    assert others == [
        EraseStep(place=None),
        EraseStep(place="nvs"),
        EraseStep(place=0x9000, size=0x1000),
        FlashStep(path="build", encrypt=True),
        WriteStep(place="nvs", content=Content(file="nvs-{serial}.bin")),
        WriteStep(place=0x9000, content=Content(data="{serial}", size=32)),
        VerifyStep(),
        VerifyStep(place=0x9000, content=Content(template="t.txt", size=10)),
        RunStep(baud=74880),
    ]
    assert isinstance(wait, WaitStep)
    assert (wait.wait.line.pattern, wait.wait.seconds) == ("ready", 2.0)
    assert wait.wait.fail is not None
    assert wait.wait.fail.pattern == "panic|abort"
    assert [step.describe() for step in job.steps[:6]] == [
        "erase the whole flash",
        "erase nvs",
        "erase 0x1000 bytes at 0x9000",
        "flash build",
        "write nvs-{serial}.bin to nvs",
        "write a text of up to 32 bytes to 0x9000",
    ]


def test_the_least_job() -> None:
    job = parse('[[step]]\ndo = "run"')
    assert (job.name, job.chip, job.boards, job.report) == ("x", "", None, None)


RUN = '\n[[step]]\ndo = "run"\n'
MISTAKES = [
    ("", "x.toml has no steps", "[[step]]"),
    ("a = ", "x.toml is not valid TOML", ""),
    ("a = " + "[" * 5000, "x.toml is not valid TOML", ""),
    ("a = " + "9" * 5000, "x.toml is not valid TOML", ""),
    ("naem = 'x'" + RUN, "x.toml: naem is not a known key", "Did you mean name?"),
    ("name = 5" + RUN, "x.toml: name must be a string, got 5", ""),
    ("name = ''" + RUN, "x.toml: name is empty", ""),
    ("chip = 'esp99'" + RUN, "x.toml: chip: unknown chip", ""),
    ("step = 5", "x.toml: step must be a list of tables, [[step]], got 5", ""),
    ("step = [5]", "x.toml: step must be a list of tables", ""),
    ("variables = 1" + RUN, "x.toml: variables must be a table, [variables], got 1", ""),
    ("[variables]\na = 1" + RUN, "x.toml: variables: a must be a string, got 1", ""),
    ("[variables]\n'a-b' = '1'" + RUN, "'a-b' cannot be the name of a variable", "letters"),
    ("[variables]\nmac = '1'" + RUN, "mac is read from the board", "another name"),
    ("[boards]\n" + RUN, "x.toml: boards needs the key file", ""),
    ("[boards]\nfile = 'a.xls'" + RUN, "the kind of a.xls is unknown", ".csv, .db"),
    ("[boards]\nfile = 'a.csv'\ntabel = 'x'" + RUN, "tabel is not a known key", "mean table?"),
    ("[report]\nfile = 'a.txt'" + RUN, "the kind of a.txt is unknown", ".jsonl"),
    ("[report]\nfile = 'a.csv'\nfields = 'x'" + RUN, "fields must be a list of strings", ""),
    ("[report]\nfile = 'a.csv'\nfields = [1]" + RUN, "fields must be a list of strings", ""),
    ("[report]\nfile = 'a.csv'\nfields = ['mac']" + RUN, "'mac' cannot be added", ""),
    ("[report]\nfile = 'a.csv'\nfields = ['a', 'a']" + RUN, "'a' cannot be added", ""),
    ("[report]\nfile = 'a.csv'\nfields = ['a b']" + RUN, "'a b' cannot be added", ""),
    ("[[step]]", "x.toml: step 1 needs the key do", ""),
    ("[[step]]\ndo = 1", "x.toml: step 1: do must be a string", ""),
    (
        "[[step]]\ndo = 'wriet'",
        "x.toml: step 1: do is 'wriet', which is unknown",
        "Did you mean 'write'?",
    ),
    (
        "[[step]]\ndo = 'xyz'",
        "x.toml: step 1: do is 'xyz', which is unknown",
        "erase, flash, write",
    ),
    (RUN + "[[step]]\ndo = 'run'\nbuad = 1", "step 2 (run): buad is not", "Did you mean baud?"),
    ("[[step]]\ndo = 'run'\nbaud = 0", "step 1 (run): baud is 0, which is out of range", ""),
    ("[[step]]\ndo = 'run'\nbaud = true", "baud must be a number, got True", ""),
    ("[[step]]\ndo = 'run'\nbaud = '9600'", "baud must be a number, got '9600'", ""),
    ("[[step]]\ndo = 'erase'", "step 1 (erase) needs at or all = true", ""),
    ("[[step]]\ndo = 'erase'\nall = 1", "all must be true or false, got 1", ""),
    ("[[step]]\ndo = 'erase'\nall = true\nat = 0", "all excludes at and size", ""),
    ("[[step]]\ndo = 'erase'\nat = 0", "step 1 (erase) needs the key size", ""),
    ("[[step]]\ndo = 'erase'\nat = 0\nsize = 0", "size is 0, which is out of range", ""),
    ("[[step]]\ndo = 'erase'\nat = 'nvs'\nsize = 1", "size is that of the partition", ""),
    ("[[step]]\ndo = 'erase'\nat = -1\nsize = 1", "at is -1, which is out of range", ""),
    ("[[step]]\ndo = 'erase'\nat = '0x9000'\nsize = 1", "not the name of a partition", "quotes"),
    ("[[step]]\ndo = 'erase'\nat = 1.5\nsize = 1", "at must be a number, got 1.5", ""),
    ("[[step]]\ndo = 'flash'", "step 1 (flash) needs the key path", ""),
    ("[[step]]\ndo = 'flash'\npath = 'b'\nencrypt = 'no'", "encrypt must be true or false", ""),
    ("[[step]]\ndo = 'write'\nfile = 'a'", "step 1 (write) needs the key at", ""),
    ("[[step]]\ndo = 'write'\nat = 0", "one of file, data and template; it has none", ""),
    ("[[step]]\ndo = 'write'\nat = 0\nfile = 'a'\ndata = 'b'", "it has file and data", ""),
    ("[[step]]\ndo = 'write'\nat = 0\nfile = 'a'\nsize = 4", "size belongs to data", ""),
    ("[[step]]\ndo = 'write'\nat = 0\ndata = 'a'", "step 1 (write) needs the key size", ""),
    ("[[step]]\ndo = 'write'\nat = 0\ndata = 'a'\nsize = 0x2000000", "more than 16 MiB", ""),
    ("[[step]]\ndo = 'write'\nat = 0\nfil = 'a'", "fil is not a known key", "mean file?"),
    ("[[step]]\ndo = 'verify'\nfile = 'a'", "step 1 (verify) needs the key at", ""),
    ("[[step]]\ndo = 'verify'\nat = 0", "it has none", ""),
    ("[[step]]\ndo = 'wait'\nline = 'a'", "the application does not run", 'do = "run"'),
    (
        RUN + "[[step]]\ndo = 'verify'\n[[step]]\ndo = 'wait'\nline = 'a'",
        "step 3 (wait): the application does not run",
        "",
    ),
    (RUN + "[[step]]\ndo = 'wait'", "step 2 (wait) needs the key line", ""),
    (RUN + "[[step]]\ndo = 'wait'\nline = '('", "line is not a regular expression", ""),
    (RUN + "[[step]]\ndo = 'wait'\nline = '(a+)+b'", "may take forever", "ab+ instead of (ab+)+"),
    (RUN + "[[step]]\ndo = 'wait'\nline = 'a'\nfail = '(a|aa)*b'", "fail repeats a group", ""),
    (RUN + "[[step]]\ndo = 'wait'\nline = 'a'\nfail = '['", "fail is not a regular", ""),
    (RUN + "[[step]]\ndo = 'wait'\nline = 'a'\nseconds = 0", "seconds is 0", "86400"),
    (RUN + "[[step]]\ndo = 'wait'\nline = 'a'\nseconds = inf", "seconds is inf", ""),
    (RUN + "[[step]]\ndo = 'wait'\nline = 'a'\nseconds = nan", "seconds is nan", ""),
    (RUN + "[[step]]\ndo = 'wait'\nline = 'a'\nseconds = '5'", "seconds must be a number", ""),
]


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES)
def test_a_mistake_is_one_error_that_names_the_place(text: str, message: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(text)
    assert caught.value.code == "job-file"
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("pattern", "refused"),
    [
        ("(a+)+b", True),
        ("(a|ab)*c", True),
        ("(?:(a?)b)+", True),
        ("(x*){2,}", True),
        (r"([\])]+ )+", True),
        ("(a|b) .*", False),
        (r"(\d+\.){3}", False),
        ("[(a+)]+", False),
        (r"\(a+\)+", False),
        ("(?:ab)+", False),
        ("(?i:ready)+", False),
    ],
)
def test_a_repeated_group_with_a_repetition_in_it_is_refused(pattern: str, refused: bool) -> None:
    re.compile(pattern)
    assert repeats_a_repetition(pattern) == refused


def test_a_file_that_is_not_text_or_not_there(tmp_path) -> None:
    with pytest.raises(DataError, match="is not valid TOML"):
        parse_job(b"\xff\xfe\x00", "x.toml")
    with pytest.raises(FileError) as caught:
        read_job(tmp_path / "missing.toml")
    assert caught.value.code == "file-read"


def test_every_cut_of_a_job_is_a_job_or_one_error() -> None:
    texts = [WHOLE[:at] for at in range(0, len(WHOLE), 3)]
    texts += [re.sub("e", "\x00", WHOLE[:at]) for at in range(0, len(WHOLE), 40)]
    outcomes = set()
    for text in texts:
        try:
            outcomes.add(type(parse(text)).__name__)
        except DataError as error:
            outcomes.add(error.code)
    assert outcomes == {"Job", "job-file"}


def test_variables_are_names_in_braces_and_other_braces_stay() -> None:
    values = {"serial": "A1", "a_2": "x"}
    text = '{"serial": "{serial}", "n": {a_2}, "b": {}, "c": {{serial}}, "d": { serial }}'
    assert find_names(text) == ("serial", "a_2")
    assert (
        fill(text, values, "x")
        == '{"serial": "A1", "n": x, "b": {}, "c": {serial}, "d": { serial }}'
    )


def test_a_value_that_contains_a_variable_is_not_filled_again() -> None:
    assert fill("{a}", {"a": "{b}", "b": "1"}, "x") == "{b}"


def test_a_variable_without_a_value_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(DataError) as caught:
        fill("{seriel}", {"serial": "A1"}, "step 2")
    assert caught.value.code == "job-variable"
    assert str(caught.value) == "step 2: the variable seriel has no value"
    assert "Did you mean {serial}?" in caught.value.hint
    with pytest.raises(DataError, match="the variable a has no value"):
        fill("{a}", {"a": ""}, "step 2")


@pytest.mark.parametrize("value", ["../x", "a/b", "a\\b", "..", "c:", "a\nb", "a\x00"])
def test_a_value_in_a_file_name_cannot_leave_the_folder(value: str) -> None:
    with pytest.raises(DataError) as caught:
        fill_path("nvs/{a}", {"a": value}, "step 2")
    assert caught.value.code == "job-variable"
    assert fill_path("../nvs/{a}.bin", {"a": "A-1.2"}, "step 2") == "../nvs/A-1.2.bin"
