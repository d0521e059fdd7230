"""A table of bad policy files: each gives its errors, at the right line and column."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import yaml
from tests.policyfile.line_counts import lines

from budgetware.policyfile import Document, check, tree
from budgetware.policyfile.rules import RULES


class Bad(NamedTuple):
    """One bad file and its first error."""

    source: str | bytes
    line: int
    column: int
    code: str
    fragment: str
    hint: str = ""


V = "version: 1\n"
ROUTE = V + "routes:\n  r:\n    "
MATCH = ROUTE + "match: "
TIER = V + "tiers:\n  t: "

BAD = {
    # The text itself.
    "empty": Bad("", 1, 1, "empty", "empty", "version: 1"),
    "only-comments": Bad("# nothing\n", 1, 1, "empty", "empty"),
    "list": Bad("- version\n", 1, 1, "not-a-mapping", "not a mapping"),
    "word": Bad("version\n", 1, 1, "not-a-mapping", "not a mapping"),
    "latin-1": Bad(b"version: 1\nservice: caf\xe9\n", 2, 13, "encoding", "0xe9 at offset 23"),
    "utf-8-then-broken": Bad("é: ".encode() + b"\xff", 1, 4, "encoding", "0xff at offset 4"),
    "utf-16": Bad("version: 1\n".encode("utf-16"), 1, 1, "encoding", "UTF-16", "UTF-8"),
    "utf-32": Bad("version: 1\n".encode("utf-32"), 1, 1, "encoding", "UTF-32", "UTF-8"),
    "nul": Bad(V + "service: a\0b\n", 2, 11, "control-character", "U+0000"),
    "escape": Bad(V + "service: \x1b[31m\n", 2, 10, "control-character", "U+001B"),
    "bidi": Bad(V + "service: a\u202eb\n", 2, 11, "control-character", "U+202E"),
    "inner-bom": Bad(V + "\ufeffservice: a\n", 2, 1, "control-character", "U+FEFF"),
    "tab": Bad("version: 1\ntiers:\n\tfree: {}\n", 3, 1, "tab", "tab", "spaces"),
    "tab-deeper": Bad("version: 1\ntiers:\n  free:\n    \tbudget: 1s\n", 4, 5, "tab", "tab"),
    "tab-after-spaces": Bad("tiers:\n  \tfree: {}\n", 2, 3, "tab", "tab", "spaces"),
    "too-large": Bad("#" * 262_145, 1, 1, "too-large", "262144 bytes", "at most 256KiB"),
    "too-large-in-bytes": Bad("é" * 131_073, 1, 1, "too-large", "262144 bytes"),
    "too-many-values": Bad(
        V + "a: [" + "x, " * 15_000 + "]\n", 2, 44_990, "too-large", "15000 keys", "takes a list"
    ),
    "too-many-plans": Bad(
        V
        + "tiers:\n"
        + "".join(f"  t{i}: {{}}\n" for i in range(173))
        + "stages:\n"
        + "".join(f"  s{i}: 1us\n" for i in range(173)),
        2,
        1,
        "too-large",
        "173 tiers, 0 routes and 173 shared stages come to 30102",
        "fewer",
    ),
    "too-many-environments": Bad(
        V + "environments:\n" + "".join(f"  e{i}: {{mode: observe}}\n" for i in range(101)),
        2,
        1,
        "too-large",
        "101 environments",
        "one name",
    ),
    # YAML that is more than a mapping of text.
    "two-documents": Bad(V + "---\nversion: 1\n", 2, 1, "several-documents", "second"),
    "anchor": Bad(V + "stages: &a {db: 5ms}\n", 2, 9, "alias", "`&a`"),
    "alias": Bad(V + "stages: *a\n", 2, 9, "alias", "`*a`"),
    "star-without-space": Bad(MATCH + "*/x\n", 4, 12, "syntax", "`*`", '"*/x"'),
    "alias-as-key": Bad(V + "*a : 1\n", 2, 1, "alias", "`*a`"),
    "alias-inside-a-key": Bad(V + "? [*a]\n: 1\n", 2, 3, "bad-key", "one word"),
    "alias-alone": Bad("*a\n", 1, 1, "alias", "`*a`"),
    "star-without-quotes": Bad(MATCH + "* /x\n", 4, 12, "syntax", "`*`", '"* /x"'),
    "merge-key": Bad(V + "tiers:\n  <<: {}\n", 3, 3, "merge-key", "merge keys"),
    "tag": Bad(V + "service: !!str a\n", 2, 10, "tag", "tags"),
    "python-tag": Bad(V + "service: !!python/name:os.system x\n", 2, 10, "tag", "tags"),
    "own-tag": Bad(V + "service: !x!y a\n", 2, 10, "syntax", "tags"),
    "directive": Bad("%YAML 1.2\n---\nversion: 1\n", 1, 1, "directive", "directives"),
    "unknown-directive": Bad("%FOO\n---\nversion: 1\n", 1, 1, "directive", "directives"),
    "list-as-key": Bad(V + "? [a]\n: 1\n", 2, 3, "bad-key", "one word"),
    "too-deep": Bad("a: " + "[" * 40, 1, 23, "too-deep", "nested"),
    "duplicate-key": Bad(V + "service: a\nservice: b\n", 3, 1, "duplicate-key", "twice", "line 2"),
    "duplicate-tier": Bad(
        V + "tiers:\n  a: {budget: 1s}\n  a: {budget: 2s}\n", 4, 3, "duplicate-key", "`a`", "line 3"
    ),
    "on-as-key": Bad(V + "stages:\n  on: 5ms\n", 3, 3, "yaml-trap", "true or false", '"on"'),
    "number-as-key": Bad(V + "stages:\n  1_0: 5ms\n", 3, 3, "yaml-trap", "a number"),
    "date-as-key": Bad(V + "stages:\n  2026-01-01: 5ms\n", 3, 3, "yaml-trap", "a date"),
    "nothing-as-key": Bad(V + "stages:\n  ~: 5ms\n", 3, 3, "yaml-trap", "nothing"),
    # YAML syntax, in words.
    "no-space": Bad("version:1\nservice: a\n", 1, 1, "syntax", "no space", "`version: 1`"),
    "no-space-later": Bad(V + "service:a\n", 2, 1, "syntax", "no space", "`service: a`"),
    "two-colons": Bad(V + "service: a: b\n", 2, 11, "syntax", "second"),
    "deeper": Bad(V + "  service: a\n", 2, 3, "syntax", "deeper than line 1", "0 spaces"),
    "deeper-after-blank-lines": Bad(V + "\n\n  service: a\n", 4, 3, "syntax", "than line 1"),
    "after-the-end": Bad(V + "...\nservice: a\n", 3, 1, "syntax", "ended above", "`...`"),
    "shallower": Bad("tiers:\n    a: {}\n  b: {}\n", 3, 3, "syntax", "fits no line above"),
    "no-colon": Bad(V + "service\n", 2, 1, "syntax", "`service` is neither", "colon"),
    "open-brace": Bad("tiers: {a: {}\nversion: 1\n", 1, 8, "syntax", "`{` is never closed"),
    "open-bracket": Bad("x: [1, 2\ny: 1\n", 1, 4, "syntax", "`[` is never closed"),
    "open-quote": Bad('service: "a\nversion: 1\n', 1, 10, "syntax", "quote is never closed"),
    "template-in-braces": Bad(
        V + "routes:\n  r: {match: GET /items/{id}}\n",
        3,
        14,
        "syntax",
        "needs quotes",
        'match: "GET /items/{id}"',
    ),
    "template-in-braces-and-more": Bad(
        V + "routes:\n  r: {match: GET /a/{id}/b/{x}, budget: 1s}\n",
        3,
        14,
        "syntax",
        "needs quotes",
        'match: "GET /a/{id}/b/{x}"',
    ),
    "template-in-a-list": Bad(
        MATCH + "[PUT /x, GET /items/{id}]\n", 4, 21, "syntax", "quotes", '"GET /items/{id}"'
    ),
    "template-in-braces-over-lines": Bad(
        V + "routes:\n  r: {\n    match: GET /items/{id},\n  }\n",
        4,
        12,
        "syntax",
        "needs quotes",
        'match: "GET /items/{id}"',
    ),
    "no-comma": Bad("tiers: {a: 1 b: 2}\n", 1, 15, "syntax", "comma"),
    "two-commas": Bad("tiers: {a: 1,, b: 2}\n", 1, 14, "syntax", "`,` stands"),
    "at-sign": Bad("service: @a\n", 1, 10, "syntax", "`@` cannot start", "quotes"),
    "bad-escape": Bad('service: "a\\q"\n', 1, 12, "syntax", "`\\q`", "single quotes"),
    "list-entry-in-mapping": Bad(V + "- a\n", 2, 1, "syntax", "list entry"),
    "text-after-quote": Bad('service: "a" b\n', 1, 14, "syntax", "after the end"),
    "list-on-key-line": Bad("stages: - a\n", 1, 9, "syntax", "line of its key", "[a, b]"),
    "bad-block": Bad("service: |9x\n", 1, 10, "syntax", "block of text"),
    # Keys.
    "no-version": Bad("service: a\n", 1, 1, "missing-key", "`version` is missing", "version: 1"),
    "version-2": Bad("version: 2\n", 1, 10, "bad-version", "`2`", "write 1"),
    "unknown-key": Bad(V + "tier: {}\n", 2, 1, "unknown-key", "`tier`", "`tiers`"),
    "unknown-nested-key": Bad(
        TIER + "{budgte: 1s}\n", 3, 7, "unknown-key", "in `tiers.t`", "`budget`"
    ),
    "static-beside-the-answers": Bad(
        ROUTE + "static: {status: 200}\n", 4, 5, "unknown-key", "`static`", "an entry of `answers`"
    ),
    "nothing-like-it": Bad(V + "zzz: 1\n", 2, 1, "unknown-key", "`zzz`", "the keys are"),
    "unknown-in-layer": Bad(
        V + "environments:\n  dev: {tirs: {}}\n", 3, 9, "unknown-key", "environments.dev", "`tiers`"
    ),
    "nested-environments": Bad(
        V + "environments:\n  dev: {environments: {}}\n", 3, 9, "unknown-key", "`environments`"
    ),
    "no-value": Bad(V + "tiers:\n", 2, 1, "no-value", "`tiers` has no value"),
    "null": Bad(TIER + "{budget: null}\n", 3, 7, "no-value", "`tiers.t.budget`"),
    "text-for-mapping": Bad(V + "tiers: many\n", 2, 8, "wrong-type", "takes a mapping"),
    "list-for-mapping": Bad(V + "tiers: [a]\n", 2, 1, "wrong-type", "takes a mapping"),
    "mapping-for-text": Bad(V + "service: {a: b}\n", 2, 1, "wrong-type", "mapping where"),
    "list-for-routes": Bad(
        V + "routes:\n  - match: GET /x\n",
        2,
        1,
        "wrong-type",
        "`routes` takes a mapping",
        "such as `routes: {signals: {match:",
    ),
    "list-for-stages": Bad(
        V + "stages: [db, ml]\n", 2, 1, "wrong-type", "mapping", "`stages: {gateway: 2ms"
    ),
    "list-for-stages-of-a-route": Bad(
        ROUTE + "stages: [db, ml]\n", 4, 5, "wrong-type", "mapping", "`stages: {db: 5ms"
    ),
    "list-for-stages-in-a-layer": Bad(
        V + "environments:\n  dev: {stages: [db]}\n", 3, 9, "wrong-type", "mapping", "gateway: 2ms"
    ),
    "list-for-a-route": Bad(
        V + "routes: {r: [GET /x]}\n", 2, 10, "wrong-type", "mapping", "`r: {match:"
    ),
    "list-for-duration": Bad(TIER + "{budget: [1s]}\n", 3, 7, "wrong-type", "a list where"),
    "text-for-list": Bad(
        ROUTE + "answers: cached\n", 4, 14, "wrong-type", "takes a list", "`answers: [cached, "
    ),
    "bad-name": Bad(V + "stages:\n  a b: 5ms\n", 3, 3, "bad-name", "`a b` is not a name"),
    "reserved-name": Bad(V + "routes:\n  _unmatched: {}\n", 3, 3, "bad-name", "reserved"),
    "non-ascii-name": Bad(V + "stages:\n  é: 5ms\n", 3, 3, "bad-name", "`é`"),
    # Values.
    "bare-number": Bad(TIER + "{budget: 30}\n", 3, 15, "missing-unit", "`30`", "30ms or 30s"),
    "quoted-number": Bad(TIER + '{budget: "30"}\n', 3, 15, "missing-unit", "`30`", "30ms or 30s"),
    "sexagesimal": Bad(TIER + "{budget: 1:30}\n", 3, 15, "bad-quantity", "`1:30`", "90s or 90m"),
    "octal": Bad(TIER + "{budget: 010}\n", 3, 15, "missing-unit", "`010`", "10ms or 10s"),
    "nan": Bad(TIER + "{budget: .nan}\n", 3, 15, "bad-quantity", "finite"),
    "infinite": Bad(TIER + "{budget: .inf}\n", 3, 15, "bad-quantity", "finite"),
    "exponent": Bad(TIER + "{budget: 1e3}\n", 3, 15, "missing-unit", "`1e3`", "1000ms"),
    "underscores": Bad(TIER + "{budget: 1_000}\n", 3, 15, "missing-unit", "`1_000`", "1000ms"),
    "date": Bad(TIER + "{budget: 2026-01-01}\n", 3, 15, "bad-quantity", "not a duration"),
    "negative": Bad(TIER + "{budget: -1s}\n", 3, 15, "bad-quantity", "negative"),
    "zero": Bad(TIER + "{budget: 0ms}\n", 3, 15, "out-of-range", "no time"),
    "two-days": Bad(TIER + "{budget: 48h}\n", 3, 15, "out-of-range", "too long", "24h"),
    "two-days-for-a-route": Bad(
        MATCH + "GET /x\n    budget: 48h\n", 5, 13, "out-of-range", "too long", "a job"
    ),
    "share-of-a-tier": Bad(TIER + "{budget: 30%}\n", 3, 15, "bad-quantity", "share of what"),
    "arabic-digits": Bad(TIER + "{budget: ٣ms}\n", 3, 15, "bad-quantity", "0 to 9"),
    "bare-rate": Bad(TIER + "{rate: 10}\n", 3, 13, "missing-unit", "`10`", "10/s"),
    "bare-share": Bad(TIER + "{share: 0.5}\n", 3, 14, "missing-unit", "`0.5`", "50%"),
    "too-much": Bad(TIER + "{share: 120%}\n", 3, 14, "out-of-range", "too much", "100%"),
    "bare-size": Bad(
        V + "checks: {assets: {a.js: 200}}\n", 2, 25, "missing-unit", "`200`", "200KB"
    ),
    "late-worth": Bad(TIER + "{late_worth: 2}\n", 3, 19, "bad-value", "worth", "-100 to 1"),
    "late-worth-text": Bad(TIER + "{late_worth: 1e1}\n", 3, 19, "bad-value", "`1e1`"),
    "surer-than-sure": Bad(
        TIER + "{confidence: 100%}\n", 3, 19, "out-of-range", "surer than any", "below 100%"
    ),
    "bare-confidence": Bad(TIER + "{confidence: 0.9}\n", 3, 19, "missing-unit", "`0.9`", "90%"),
    "all-late": Bad(
        TIER + "{max_late_rate: 100%}\n", 3, 22, "out-of-range", "every answer", "below 100%"
    ),
    "none-late": Bad(TIER + "{max_late_rate: 0%}\n", 3, 22, "out-of-range", "nothing"),
    "unknown-overrun": Bad(
        V + "stages: {a: {on_overrun: answers}}\n", 2, 26, "bad-choice", "`answers`", "`answer`"
    ),
    "count-of-zero": Bad(V + "concurrency: 0\n", 2, 14, "bad-value", "not a count", "1 to 1000000"),
    "count-of-zeros": Bad(V + "concurrency: 00\n", 2, 14, "bad-value", "count", "1 to 1000000"),
    "count-of-one": Bad(V + "concurrency: 0_01\n", 2, 14, "bad-value", "count", "write 1"),
    "calls-of-zero": Bad(
        V + "stages: {db: {calls: 0}}\n", 2, 22, "bad-value", "not a count", "1 to 1000000"
    ),
    "count-with-underscore": Bad(V + "concurrency: 1_0\n", 2, 14, "bad-value", "count", "10"),
    "yes": Bad(V + "stages: {a: {optional: yes}}\n", 2, 24, "bad-value", "`yes`", "write true"),
    "quoted-true": Bad(
        V + 'stages: {a: {optional: "true"}}\n', 2, 24, "bad-value", "`true`", "write true"
    ),
    "service-on": Bad(V + "service: on\n", 2, 10, "yaml-trap", "true or false", '"on"'),
    "service-time": Bad(V + "service: 12:30\n", 2, 10, "yaml-trap", "a number", '"12:30"'),
    "service-too-long": Bad(V + f"service: {'a' * 65}\n", 2, 10, "bad-value", "64 characters"),
    "unknown-mode": Bad(V + "mode: observ\n", 2, 7, "bad-choice", "`observ`", "`observe`"),
    "unknown-clock": Bad(ROUTE + "clock: last\n", 4, 12, "bad-choice", "`last`"),
    "unknown-answer": Bad(ROUTE + "answers: [cache]\n", 4, 15, "bad-choice", "`cache`", "`cached`"),
    "status": Bad(
        ROUTE + "answers: [{static: {status: 99}}]\n", 4, 33, "bad-value", "status", "200 to 599"
    ),
    "header-name": Bad(
        ROUTE + "answers: [{static: {headers: {a b: c}}}]\n", 4, 35, "bad-name", "header name"
    ),
    "header-mapping": Bad(
        ROUTE + "cache: {vary: [a: b]}\n", 4, 20, "wrong-type", "a mapping where", "quotes"
    ),
    "header-list": Bad(
        ROUTE + "cache: {vary: [[a]]}\n", 4, 20, "wrong-type", "a list where", "one value"
    ),
    "header-value": Bad(
        ROUTE + 'answers: [{static: {headers: {a: "b\\nc"}}}]\n', 4, 38, "bad-value", "header"
    ),
    "body-mapping": Bad(
        ROUTE + "answers: [{static: {body: {a: b}}}]\n", 4, 25, "wrong-type", "text"
    ),
    "static-as-a-word": Bad(
        ROUTE + "answers: [static]\n", 4, 15, "bad-choice", "no response", "`static: {status: 200"
    ),
    "static-missing": Bad(ROUTE + "answers: [{}]\n", 4, 15, "missing-key", "`static`"),
    "percentile-100": Bad(ROUTE + "objectives: {p100: 1s}\n", 4, 18, "bad-name", "`p100`", "p95"),
    "percentile-0": Bad(ROUTE + "objectives: {p0: 1s}\n", 4, 18, "bad-name", "`p0`"),
    "percentile-bare": Bad(ROUTE + "objectives: {p95: 25}\n", 4, 23, "missing-unit", "`25`"),
    # Matches.
    "no-method": Bad(MATCH + "/x\n", 4, 12, "bad-match", "no method", '"GET /x"'),
    "lower-case": Bad(MATCH + "get /x\n", 4, 12, "bad-match", "upper case", "GET"),
    "unknown-method": Bad(MATCH + "GTE /x\n", 4, 12, "bad-match", "`GTE`", "`GET`"),
    "any": Bad(MATCH + "ANY /x\n", 4, 12, "bad-match", "`ANY`", '"* /x"'),
    "two-methods": Bad(MATCH + "GET,POST /x\n", 4, 12, "bad-match", "one method", '"POST /x"'),
    "no-path": Bad(MATCH + "GET\n", 4, 12, "bad-match", "no path"),
    "no-slash": Bad(MATCH + "GET x/y\n", 4, 12, "bad-match", "slash", "/x/y"),
    "query": Bad(MATCH + "GET /x?a=1\n", 4, 12, "bad-match", "query string", '"GET /x"'),
    "fragment": Bad(MATCH + '"GET /x#a"\n', 4, 12, "bad-match", "fragment", '"GET /x"'),
    "url": Bad(MATCH + "GET https://a.b/x\n", 4, 12, "bad-match", "no host", '"GET /x"'),
    "flask": Bad(MATCH + "GET /x/<int:id>\n", 4, 12, "bad-match", "Flask", "{id}"),
    "flask-path": Bad(MATCH + "GET /x/<path:p>\n", 4, 12, "bad-match", "Flask", "{p:path}"),
    "express": Bad(MATCH + "GET /x/:id\n", 4, 12, "bad-match", "`:id`", "{id}"),
    "converter": Bad(MATCH + '"GET /x/{id:int}"\n', 4, 12, "bad-match", "converter", "{id}"),
    "regex": Bad(MATCH + '"GET /x/[0-9]+"\n', 4, 12, "bad-match", "regular expression"),
    "regex-end": Bad(MATCH + '"GET /x$"\n', 4, 12, "bad-match", "regular expression"),
    "part-of-segment": Bad(MATCH + '"GET /x-{id}"\n', 4, 12, "bad-match", "neither text nor"),
    "inner-rest": Bad(MATCH + "GET /**/x\n", 4, 12, "bad-match", "rest of the path"),
    "inner-star": Bad(MATCH + "GET /*/x\n", 4, 12, "bad-match", "`*`", "{name}"),
    "last-star": Bad(MATCH + "GET /x/*\n", 4, 12, "bad-match", "`*`", "**"),
    "double-slash": Bad(MATCH + "GET /a//b\n", 4, 12, "bad-match", "empty segment"),
    "same-parameter": Bad(MATCH + '"GET /{a}/{a}"\n', 4, 12, "bad-match", "here twice"),
    "percent-encoded": Bad(MATCH + "GET /a%20b\n", 4, 12, "bad-match", "percent-encoded"),
    "two-paths": Bad(MATCH + "GET /a /b\n", 4, 12, "bad-match", "one path", "list"),
    "second-of-list": Bad(MATCH + "[GET /a, PUT b]\n", 4, 21, "bad-match", "slash", "/b"),
    "empty-list": Bad(MATCH + "[]\n", 4, 5, "no-value", "lists nothing"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_gives_its_error_in_its_place(name: str) -> None:
    """A bad file has no policy, and the first error says what, where and what would be right."""
    bad = BAD[name]
    document = check(bad.source, file="budgetware.yaml")
    assert document.policy is None
    first = document.errors[0]
    assert (bad.line, bad.column, bad.code) == (first.line, first.column, first.code)
    assert bad.fragment in first.message
    assert bad.hint in first.hint
    assert first.length >= 1


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if bad.code == "syntax"])
def test_both_yaml_parsers_lead_to_the_same_report(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether PyYAML was built with its C parser makes no difference to what is reported."""
    with_c = check(BAD[name].source).problems
    monkeypatch.setattr(tree, "_Parser", yaml.SafeLoader)
    assert check(BAD[name].source).problems == with_c


def test_every_rule_that_can_be_reported_is_described() -> None:
    """The codes of the whole table are rules of the reference page."""
    codes = {problem.code for bad in BAD.values() for problem in check(bad.source).problems}
    assert codes <= set(RULES)


def test_all_errors_are_listed_at_once_in_the_order_of_the_file() -> None:
    """One run names errors of shape, units and sense, each once, from top to bottom."""
    text = (
        "version: 1\n"
        "mode: enforced\n"
        "tiers:\n"
        "  free: {budget: 1}\n"
        "routes:\n"
        "  a:\n"
        "    match: [get /a, GET /b]\n"
        "    objectives: {p50: 2s, p95: 1s, p99: 5}\n"
        "  b: {match: GET /b, bugdet: 1s}\n"
        "  c: {match: GET /b}\n"
        "stages: {db: 5ms, db: 6ms}\n"
    )
    problems = [(problem.line, problem.code) for problem in check(text).errors]
    assert problems == [
        (2, "bad-choice"),
        (4, "missing-unit"),
        (7, "bad-match"),
        (8, "impossible-objective"),
        (8, "missing-unit"),
        (9, "unknown-key"),
        (10, "unreachable"),
        (11, "duplicate-key"),
    ]


def test_a_leading_byte_order_mark_does_no_harm() -> None:
    """A file saved with a UTF-8 byte order mark reads as one without, columns included."""
    assert check(b"\xef\xbb\xbfversion: 1\n").policy is not None
    assert check(b"\xef\xbb\xbfverzion: 1\n").errors[0].column == 1


def test_line_ends_of_every_kind_count_as_lines() -> None:
    """Windows and old Mac line ends give the lines editors show."""
    for end in ("\n", "\r\n", "\r"):
        text = end.join(["version: 1", "", "zzz: 1", ""])
        assert check(text).errors[0].line == 3


BOMBS = {
    "laughs": "".join(
        f"{key}: &{key} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, key in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "merges": "a: &a {k: 1}\n" + "".join(f"m{i}:\n  <<: [*a, *a]\n" for i in range(10_000)),
    "itself": "a: &a [*a, {*a : *a}]\n" * 10_000,
    "deep-flow": "[" * 260_000,
    "deep-mapping": "{a: " * 60_000,
    "deep-list": "- " * 130_000 + "a",
    "huge-number": "concurrency: " + "9" * 260_000,
    "huge-colons": "a" + ":" * 260_000,
    "huge-quotes": "'" * 260_000,
    "huge-list": "a: [" + "x," * 130_000 + "]",
    "unknown-keys": V + "".join(f"k{i}: 1\n" for i in range(7_000)),
    "duplicates": V + "a: 1\n" * 40_000,
    "bad-routes": V + "routes:\n" + "".join(f"  r{i}: {{budget: 3}}\n" for i in range(3_500)),
    "huge-template": MATCH + '"GET /' + "{a}/" * 60_000 + '"',
    "unquoted-template": ROUTE.replace("r:\n    ", "r: {match: GET /") + "{a" * 120_000 + "}",
    "spaces-in-a-number": TIER + '{budget: "1' + " " * 250_000 + "y" * 20 + '"}',
    "crossed": V
    + "tiers:\n"
    + "".join(f"  t{i}: {{}}\n" for i in range(1_500))
    + "stages:\n"
    + "".join(f"  s{i}: 1us\n" for i in range(1_500))
    + "routes:\n"
    + "".join(f"  r{i}: {{match: GET /r{i}}}\n" for i in range(1_500)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name: str) -> None:
    """Files made to exhaust a reader are refused after little work, with few words."""
    documents: list[Document] = []
    assert lines(lambda: documents.append(check(BOMBS[name]))) < 2_000_000  # about a second
    (document,) = documents
    assert document.policy is None
    assert document.problems[0].code != "too-large" or name in {"huge-list", "crossed"}
    assert 1 <= len(document.problems) <= 201
    assert max(len(problem.message) for problem in document.problems) < 300
    assert max(len(problem.hint) for problem in document.problems) < 700
    assert max(len(problem.path) for problem in document.problems) < 700
