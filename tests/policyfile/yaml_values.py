"""Any YAML value, and a valid policy file with places to put it at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from hypothesis import strategies as st

TRADING = (Path(__file__).parent.parent / "fixtures" / "policies" / "trading.yaml").read_text()

FULL = (
    TRADING
    + """
  full:
    routes:
      full:
        match: [GET /full, "* /full/{id}"]
        budget: {free: 1s, pro: 500ms}
        reserve: 10%
        stages:
          db: {budget: 5ms, calls: 2, on_overrun: answer, objectives: {p95: 4ms, average: 2ms}}
          auth: off
        clock: first_byte
        answers: [{static: {status: 202, body: "later", headers: {x-a: b}}}, reject]
        cache: {fresh: 1s, stale: 2s, vary: [accept, tier], public: true}
        mode: shadow
        cancel_safe: false
        timer: unsafe
    tiers: {basic: {confidence: 60%, max_late_rate: 1%}}
"""
)
"""A valid file in which every kind of entry is somewhere."""

LEAVES = (
    *("", "~", "null", "true", "off", "0", "-1", "1.5", "010", "0x1F", "1_000", "1:30", "1e3"),
    *(".nan", ".inf", "-.inf", "2026-01-01", "2026-01-01T12:00:00Z", "'text'", '""', "text"),
    *(
        "5ms",
        "1s",
        "50%",
        "10/s",
        "10KB",
        "GET /x",
        "p95",
        "cached",
        "identity",
        "observe",
        "=",
        "<<",
    ),
    *("!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!python/name:os.system x", "!own a"),
    *(
        "&a text",
        "*a",
        "&a [*a]",
        "&a {k: *a}",
        '"\\u00e9\\0"',
        "'a\n  b'",
        "x" * 300,
        "-",
        "?",
        "{}",
    ),
)


def _listed(parts: list[str]) -> str:
    return f"[{', '.join(parts)}]"


def _mapped(parts: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"? {key} : {value}" for key, value in parts) + "}"


_LEAF = st.sampled_from(LEAVES) | st.text(max_size=8) | st.integers().map(str)

VALUES = (
    st.sampled_from(LEAVES)
    | st.recursive(
        _LEAF | st.floats().map(repr),
        lambda inner: (
            st.lists(inner, max_size=3).map(_listed)
            | st.lists(st.tuples(_LEAF, inner), max_size=3).map(_mapped)
        ),
        max_leaves=6,
    )
    | _LEAF.map(lambda one: _listed([f"a: {one}"]))
    | _LEAF.map(lambda one: _mapped([("a", one), ("a", one)]))
    | st.tuples(_LEAF, _LEAF).map(lambda two: _mapped([(_listed([two[0]]), two[1])]))
)
"""The text of one value: what is no policy, no text, no key or no YAML included."""


def places(text: str) -> list[tuple[int, int, str]]:
    """Return where the values and the keys of *text* begin and end, and what ends their line."""
    found = []
    root = yaml.compose(text)
    assert root is not None
    for node in _nodes(root):
        start, end = node.start_mark.index, node.end_mark.index
        found.append((start, end, "\n" if text[start:end].endswith(("\n", " ")) else ""))
    return found


def _nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    yield node
    for part in node.value if isinstance(node.value, list) else ():
        for inner in part if isinstance(part, tuple) else (part,):
            yield from _nodes(inner)
