"""Each parser against a table: text to value, or to a ParseError."""

from __future__ import annotations

import pytest

from coresize import units
from coresize.detection import parse, parse_cgroup, parse_jobs
from coresize.errors import ParseError


BAD = ParseError

#: parser: {case: (text, value or BAD)}
TABLE = {
    units.whole: {
        "plain": ("8", 8),
        "newline": ("8\n", 8),
        "crlf": ("8\r\n", 8),
        "zero": ("0", 0),
        "empty": ("", BAD),
        "sign": ("+8", BAD),
        "negative": ("-1", BAD),
        "underscore": ("1_000", BAD),
        "other digits": ("٨", BAD),
        "superscript": ("8²", BAD),
        "hexadecimal": ("0x8", BAD),
        "fraction": ("8.5", BAD),
        "too long": ("9" * 5000, BAD),
        "word": ("max", BAD),
    },
    units.cores: {
        "whole": ("8", 8.0),
        "fraction": ("8.5", 8.5),
        "exact": ("8.342", 8.342),
        "small": ("0.05", 0.05),
        "zero": ("0", BAD),
        "zero fraction": ("0.0", BAD),
        "negative": ("-1", BAD),
        "nan": ("nan", BAD),
        "infinite": ("inf", BAD),
        "exponent": ("1e3", BAD),
        "comma": ("8,5", BAD),
        "no whole part": (".5", BAD),
        "no fraction": ("8.", BAD),
        "two points": ("8.5.1", BAD),
        "other digits": ("٨", BAD),
        "other fraction": ("8.٥", BAD),
        "space inside": ("8 .5", BAD),
        "too long": ("8." + "3" * 400, BAD),
        "empty": ("", BAD),
    },
    units.size: {
        "bytes": ("4096", 4096),
        "B": ("10B", 10),
        "GB": ("4GB", 4_000_000_000),
        "MiB": ("512MiB", 512 * 1024**2),
        "Gi": ("16Gi", 16 * 1024**3),
        "fraction": ("1.5G", 1_500_000_000),
        "exact fraction": ("0.1GB", 100_000_000),
        "small letters": ("4gib", 4 * 1024**3),
        "space": ("4 GB", 4_000_000_000),
        "kilo": ("2k", 2000),
        "exa": ("1EiB", 1024**6),
        "milli": ("512m", BAD),
        "small giga": ("4g", BAD),
        "zero": ("0", BAD),
        "less than a byte": ("0.0001KB", BAD),
        "unit alone": ("GB", BAD),
        "words": ("12 gigs", BAD),
        "negative": ("-4GB", BAD),
        "comma": ("1,5GB", BAD),
        "empty": ("", BAD),
    },
    parse.cpu_max: {
        "max": ("max 100000\n", None),
        "max alone": ("max\n", None),
        "quota": ("150000 100000\n", 1.5),
        "quota alone": ("200000\n", 2.0),
        "not a round number": ("834200 100000", 8.342),
        "long period": ("16000000 1000000", 16.0),
        "tab and crlf": ("250000\t100000\r\n", 2.5),
        "extra field": ("250000 100000 7", 2.5),
        "zero quota": ("0 100000", BAD),
        "zero period": ("100000 0", BAD),
        "negative quota": ("-1 100000", BAD),
        "negative period": ("100000 -1", BAD),
        "words": ("asdf 100000", BAD),
        "empty": ("", BAD),
        "blank": ("\n", BAD),
    },
    parse.cfs_quota: {
        "none": ("-1\n", None),
        "quota": ("150000\n", 150_000),
        "zero": ("0", BAD),
        "negative": ("-2", BAD),
        "empty": ("\n", BAD),
        "v2 text": ("max 100000", BAD),
    },
    parse.cpu_list: {
        "one": ("3\n", {3}),
        "range": ("0-3", {0, 1, 2, 3}),
        "mixed": ("0-1,8,10-11\n", {0, 1, 8, 10, 11}),
        "overlap": ("0-2,1-3", {0, 1, 2, 3}),
        "empty": ("\n", set()),
        "backwards": ("3-1", BAD),
        "open": ("3-", BAD),
        "trailing comma": ("0,", BAD),
        "huge": ("0-99999999", BAD),
        "words": ("all", BAD),
    },
    parse.memory_limit: {
        "max": ("max\n", None),
        "bytes": ("536870912\n", 536870912),
        "zero": ("0\n", 0),
        "4K pages": ("9223372036854771712", None),
        "64K pages": ("9223372036854710272", None),
        "LONG_MAX": ("9223372036854775807", None),
        "ULONG_MAX": ("18446744073709551615", None),
        "just below": (str(2**63 - 2**20 - 1), 2**63 - 2**20 - 1),
        "negative": ("-1", BAD),
        "empty": ("", BAD),
    },
    parse.memory_stat: {
        "number": ("inactive_file 4096", 4096),
        "none": ("inactive_file", BAD),
        "words": ("inactive_file many", BAD),
    },
    parse.meminfo: {
        "usual": ("MemTotal:       24684084 kB", 24684084 * 1024),
        "no space": ("MemTotal:24684084 kB", 24684084 * 1024),
        "no unit": ("MemTotal:  5", 5 * 1024),
        "empty": ("MemTotal:", BAD),
        "no colon": ("MemTotal 5 kB", BAD),
    },
    parse.rlimit: {
        "unlimited": (
            "Max address space         unlimited            unlimited            bytes",
            None,
        ),
        "limited": (
            "Max address space         1073741824           unlimited            bytes",
            1073741824,
        ),
        "cut": ("Max address space", BAD),
    },
    parse_cgroup.unescape: {
        "plain": ("/sys/fs/cgroup", "/sys/fs/cgroup"),
        "space": (r"/a\040b", "/a b"),
        "backslash": (r"/my\134x2dvm.scope", r"/my\x2dvm.scope"),
        "twice": (r"/a\040\011b", "/a \tb"),
        "no escape": (r"/a\x2d", r"/a\x2d"),
        "cut": ("/a\\04", "/a\\04"),
        "above ascii": (r"/a\377", r"/a\377"),
    },
    parse_jobs.slurm_mebibytes: {
        "plain": ("2048", 2 * 1024**3),
        "K": ("2048K", 2 * 1024**2),
        "M": ("2M", 2 * 1024**2),
        "G": ("4G", 4 * 1024**3),
        "T": ("1T", 1024**4),
        "zero": ("0", 0),
        "words": ("much", BAD),
        "unit alone": ("G", BAD),
        "empty": ("", BAD),
    },
    parse_jobs.host_lines: {
        "lines": ("a\na\nb\n", {"a": 2, "b": 1}),
        "words": ("a a b", {"a": 2, "b": 1}),
        "empty": ("", {}),
    },
    parse_jobs.host_pairs: {
        "pairs": ("hostA 2 hostB 3", {"hostA": 2, "hostB": 3}),
        "twice": ("a 2 a 3", {"a": 5}),
        "odd": ("a 2 b", BAD),
        "words": ("a b", BAD),
        "empty": ("", {}),
    },
    parse_jobs.pe_hosts: {
        "lines": (
            "n1 4 all.q@n1 UNDEFINED\nn2 2 all.q@n2 <NULL>\n",
            {"n1": 4, "n2": 2},
        ),
        "two queues": ("n1 4 a.q x\nn1 2 b.q x", {"n1": 6}),
        "no count": ("n1\n", {}),
        "one bad line": ("n1 4 q x\nn2 x q x\n", {"n1": 4}),
        "empty": ("", {}),
    },
}

CASES = [
    pytest.param(parser, text, value, id=f"{parser.__name__}-{case}")
    for parser, cases in TABLE.items()
    for case, (text, value) in cases.items()
]


@pytest.mark.parametrize(("parser", "text", "value"), CASES)
def test_parser(parser, text, value):
    if value is BAD:
        with pytest.raises(ParseError):
            parser(text)
    else:
        assert parser(text) == value


@pytest.mark.parametrize(
    ("cpus", "text"),
    [
        ([], ""),
        ([3], "3"),
        (range(4), "0-3"),
        ([0, 1, 2, 3, 8, 10, 11], "0-3,8,10-11"),
        ([0, 2], "0,2"),
    ],
)
def test_cpu_list_format(cpus, text):
    assert parse.format_cpu_list(cpus) == text


#: case: (text of /proc/self/cgroup, controller, version and path)
MEMBERSHIPS = {
    "v2": ("0::/app\n", "cpu", (2, "/app")),
    "v1": ("3:cpu,cpuacct:/app\n", "cpu", (1, "/app")),
    "v1 before v2": ("3:cpu:/one\n0::/two\n", "cpu", (1, "/one")),
    "v1 after v2": ("0::/two\n3:cpu:/one\n", "cpu", (1, "/one")),
    "other controller on v1": ("3:memory:/one\n0::/two\n", "cpu", (2, "/two")),
    "name=cpu is none": ("3:name=cpu:/decoy\n2:cpu:/real\n", "cpu", (1, "/real")),
    "cpuset is not cpu": ("3:cpuset:/one\n", "cpu", None),
    "colons": ("0::/pod:cri:0a1b\n", "cpu", (2, "/pod:cri:0a1b")),
    "controller in a path": ("0::/x:cpu:/y\n", "cpu", (2, "/x:cpu:/y")),
    "spaces": ("0::/a b \n", "cpu", (2, "/a b ")),
    "line separator in a name": ("0::/a\x0bb\u2028c\n", "cpu", (2, "/a\x0bb\u2028c")),
    "no newline": ("0::/app", "cpu", (2, "/app")),
    "crlf": ("0::/app\r\n3:memory:/a\r\n", "cpu", (2, "/app")),
    "above the root": ("0::/../x\n", "cpu", (2, "/../x")),
    "no path": ("0::\n", "cpu", None),
    "relative": ("0::app\n", "cpu", None),
    "garbage": ("hello\nx:cpu:/\n", "cpu", None),
    "empty": ("", "cpu", None),
}


@pytest.mark.parametrize("case", MEMBERSHIPS)
def test_own_cgroup(case):
    text, controller, answer = MEMBERSHIPS[case]
    assert parse_cgroup.own_cgroup(text, controller) == answer


V2 = "29 21 0:26 {root} {point} rw,nosuid {optional}- cgroup2 {source} rw,nsdelegate\n"
V1 = "30 21 0:27 / /sys/fs/cgroup/x rw shared:1 - cgroup cgroup {options}\n"


def _v2(root="/", point="/sys/fs/cgroup", optional="", source="cgroup2"):
    return V2.format(root=root, point=point, optional=optional, source=source)


#: case: (text of mountinfo, version, controller, roots by mount point)
MOUNTS = {
    "v2": (_v2(), 2, "cpu", {"/sys/fs/cgroup": "/"}),
    "optional fields": (
        _v2(optional="shared:4 master:2 propagate_from:1 "),
        2,
        "cpu",
        {"/sys/fs/cgroup": "/"},
    ),
    "any source": (_v2(source="none"), 2, "cpu", {"/sys/fs/cgroup": "/"}),
    "escapes": (
        _v2(root=r"/a\040b", point=r"/mnt/c\134d"),
        2,
        "cpu",
        {r"/mnt/c" + "\\d": "/a b"},
    ),
    "two points": (
        _v2() + _v2(root="/x", point="/mnt"),
        2,
        "cpu",
        {"/sys/fs/cgroup": "/", "/mnt": "/x"},
    ),
    "the later hides": (_v2() + _v2(root="/x"), 2, "cpu", {"/sys/fs/cgroup": "/x"}),
    "v1": (V1.format(options="rw,cpu,cpuacct"), 1, "cpu", {"/sys/fs/cgroup/x": "/"}),
    "v1 crlf": (
        V1.format(options="rw,cpu\r"),
        1,
        "cpu",
        {"/sys/fs/cgroup/x": "/"},
    ),
    "v1 space after": (
        V1.format(options="rw,cpu release_agent=/a"),
        1,
        "cpu",
        {"/sys/fs/cgroup/x": "/"},
    ),
    "v1 other": (V1.format(options="rw,cpuset"), 1, "cpu", {}),
    "v1 named": (V1.format(options="rw,name=cpu"), 1, "cpu", {}),
    "v1 is not v2": (V1.format(options="rw,cpu"), 2, "cpu", {}),
    "v2 is not v1": (_v2(), 1, "cpu", {}),
    "space in options": (
        V1.format(options="rw,release_agent=/my agent,cpu"),
        1,
        "cpu",
        {"/sys/fs/cgroup/x": "/"},
    ),
    "broken line before": (
        "99 1 0:1 / /broken rw\n" + _v2(),
        2,
        "cpu",
        {"/sys/fs/cgroup": "/"},
    ),
    "cut": ("29 21 0:26 / /sys/fs/cgroup\n", 2, "cpu", {}),
    "fields missing": ("29 21 / - cgroup2 cgroup2 rw\n", 2, "cpu", {}),
    "empty": ("", 2, "cpu", {}),
}


@pytest.mark.parametrize("case", MOUNTS)
def test_cgroup_mounts(case):
    text, version, controller, roots = MOUNTS[case]
    assert parse_cgroup.cgroup_mounts(text, version, controller) == roots


@pytest.mark.parametrize(
    ("text", "node", "count"),
    [
        ("16", 0, 16),
        ("16", None, 16),
        ("72(x2),36", 0, 72),
        ("72(x2),36", 1, 72),
        ("72(x2),36", 2, 36),
        ("72(x2),36", 3, BAD),
        ("72(x2),36", None, BAD),
        ("4(x2),4", None, 4),
        ("4(x1000000000000)", 999_999_999_999, 4),
        ("4(x0)", 0, BAD),
        ("4(x", 0, BAD),
        ("4(x2", 0, BAD),
        ("4)", 0, BAD),
        ("", 0, BAD),
        ("a", 0, BAD),
    ],
)
def test_slurm_count(text, node, count):
    if count is BAD:
        with pytest.raises(ParseError):
            parse_jobs.slurm_count(text, node)
    else:
        assert parse_jobs.slurm_count(text, node) == count


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("Cpus = 4\nMemory = 4096\n", "Cpus", 4),
        ("Cpus = 4\nMemory = 4096\n", "Memory", 4096),
        ("cpus=4", "Cpus", 4),
        ("DetectedCpus = 64\nCpus = 4\n", "Cpus", 4),
        ("Cpus = undefined", "Cpus", BAD),
        ("", "Cpus", BAD),
    ],
)
def test_classad(text, name, value):
    if value is BAD:
        with pytest.raises(ParseError):
            parse_jobs.classad(text, name)
    else:
        assert parse_jobs.classad(text, name) == value
