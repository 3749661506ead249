#!/usr/bin/env python3
"""Counts test cases over all tests of one ctest run and prints "N passed, N failed, N skipped".

Input:  the folder with ctest.xml (ctest --output-junit) and one NAME.json per googletest program.
Rules:  a googletest program counts its cases; any other test counts as one; a program that failed
        without saying which case (crash, time-out, exit code) counts one failed case.
Output: the names of failed and skipped cases, under a failed one the program's seed and an extract of
        what it said, then the totals as the last line; exit code 1 if anything failed or nothing ran.
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

LINES_MAX, COLUMNS_MAX = 8, 160  # of an extract


def extract(text):
    """First and last lines of `text`, each cut off at its right end."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > LINES_MAX:
        lines = lines[:LINES_MAX // 2] + ["..."] + lines[-LINES_MAX // 2:]
    return [f"    {line[:COLUMNS_MAX]}" for line in lines]


def cases_of(path):
    """(name, state, first message) of each case of one googletest result; raises ValueError if it is not complete."""
    report = json.loads(path.read_text(encoding="utf-8"))
    for suite in report["testsuites"]:
        for case in suite["testsuite"]:
            name = f"{suite['name']}.{case['name']}"
            if case.get("failures"):
                yield name, "failed", case["failures"][0]["failure"]
            elif case.get("result") == "SKIPPED":
                yield name, "skipped", ""
            elif case.get("status") == "NOTRUN":
                yield name, "skipped", ""  # DISABLED_
            else:
                yield name, "passed", ""


def collect(folder):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    lines = []
    root = ElementTree.parse(folder / "ctest.xml").getroot()
    for entry in root.iter("testcase"):
        name = entry.get("name")
        state = {"run": "passed", "notrun": "skipped", "disabled": "skipped"}.get(entry.get("status"), "failed")
        if state == "skipped" and entry.get("status") == "notrun" and "SKIP" not in skip_reason(entry):
            state = "failed"  # for example: the program was not found
        failed_cases = 0
        result = folder / f"{name}.json"
        cases = []
        if result.exists():
            try:
                cases = list(cases_of(result))
            except (ValueError, KeyError) as error:
                lines.append(f"{name}: unreadable result file ({error})")
                state = "failed"
        output = entry.findtext("system-out") or ""
        for case, case_state, message in cases:
            counts[case_state] += 1
            failed_cases += case_state == "failed"
            if case_state != "passed":
                lines.append(f"{case_state}: {name}: {case}{seed_of(output) if case_state == 'failed' else ''}")
            lines += extract(message)
        if not cases:
            counts[state] += 1
            if state != "passed":
                lines.append(f"{state}: {name} ({skip_reason(entry) or 'see its output above'})")
            if state == "failed":
                lines += extract(output)
        elif state == "failed" and failed_cases == 0:
            counts["failed"] += 1
            lines.append(f"failed: {name}: all of its cases passed, but the program failed")
            lines += extract(output)  # its first line tells the seed
    return counts, lines


def seed_of(output):
    """What a test program's output says first: how to draw the same again."""
    seed = re.search(r"repeat with (SMARTPIPE_TEST_SEED=\d+)", output)
    return f" ({seed[1]})" if seed else ""


def skip_reason(entry):
    for child in entry:
        if child.tag in ("skipped", "failure"):
            return child.get("message") or ""
    return ""


def main():
    try:
        counts, lines = collect(pathlib.Path(sys.argv[1]))
    except (OSError, ElementTree.ParseError) as error:
        print(f"No test results: {error}", file=sys.stderr)
        counts, lines = {"passed": 0, "failed": 1, "skipped": 0}, []
    print("\n".join(lines + ["{passed} passed, {failed} failed, {skipped} skipped".format(**counts)]))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
