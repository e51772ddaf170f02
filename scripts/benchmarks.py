#!/usr/bin/env python3
"""Puts what a suite has measured into docs/BENCHMARKS.md: its section, and its rows of the table of bars.

    target/release/tidegate-loadtest compare loadtest/suites/echo.toml --markdown echo.md
    scripts/benchmarks.py echo.md COMMIT

COMMIT is what was measured; the section names it. What the page says in words about the figures is not touched."""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "BENCHMARKS.md"
# That of the table of bars.
HEAD = "| suite | work | bar | | measured |"
# As `compare --markdown` writes a bar and what became of it.
BAR = re.compile(r"- `([^`]+)` (holds|no verdict, [^:]+|\*\*[^*]+\*\*): (.+)")


def bars(title: str, measured: str) -> list[str]:
    """The rows of the table for the bars of a suite."""
    rows, work = [], ""
    for line in measured.splitlines():
        if line.startswith("### "):
            work = line[4:]
        elif match := BAR.fullmatch(line):
            bar, verdict, value = match.groups()
            rows.append(f"| {title} | {work} | `{bar}` | {verdict} | {value} |")
    return rows


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    measured, commit = Path(sys.argv[1]).read_text().strip(), sys.argv[2]
    title = measured.removeprefix("- ").split(":")[0]
    page = PAGE.read_text()

    section = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    if section is None:
        sys.exit(f"benchmarks: the page has no section {title}")
    words = section[1].split(f"- {title}:")[0].strip()
    words, named = re.subn(r"Commit `[^`]+`", f"Commit `{commit}`", words)
    if named != 1:
        sys.exit(f"benchmarks: the words of the section {title} must name one commit")
    page = page.replace(section[0], f"## {title}\n\n{words}\n\n{measured}\n\n")

    lines = page.splitlines()
    table = lines.index(HEAD)
    end = lines.index("", table)
    of_suite = [at for at in range(table, end) if lines[at].startswith(f"| {title} |")]
    first = of_suite[0] if of_suite else end
    lines[first : first + len(of_suite)] = bars(title, measured)
    page = "\n".join(lines)
    PAGE.write_text(page.rstrip() + "\n")


if __name__ == "__main__":
    main()
