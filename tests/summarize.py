#!/usr/bin/env python3
"""Counts test cases over all tests of one ctest run and prints "N passed, N failed, N skipped".

Input:  the folder with ctest.xml (ctest --output-junit) and one NAME.json per googletest program.
Rules:  a googletest program counts its cases; any other test counts as one; a program that failed
        without saying which case (crash, time-out, exit code) counts one failed case.
Output: the names of failed and skipped cases, then the totals as the last line; exit code 1 if
        anything failed or nothing ran.
"""
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def cases_of(path):
    """(name, state) of each case of one googletest result; raises ValueError if it is not complete."""
    report = json.loads(path.read_text(encoding="utf-8"))
    for suite in report["testsuites"]:
        for case in suite["testsuite"]:
            name = f"{suite['name']}.{case['name']}"
            if case.get("failures"):
                yield name, "failed"
            elif case.get("result") == "SKIPPED":
                yield name, "skipped"
            elif case.get("status") == "NOTRUN":
                yield name, "skipped"  # DISABLED_
            else:
                yield name, "passed"


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
        for case, case_state in cases:
            counts[case_state] += 1
            failed_cases += case_state == "failed"
            if case_state != "passed":
                lines.append(f"{case_state}: {name}: {case}")
        if not cases:
            counts[state] += 1
            if state != "passed":
                lines.append(f"{state}: {name} ({skip_reason(entry) or 'see its output above'})")
        elif state == "failed" and failed_cases == 0:
            counts["failed"] += 1
            lines.append(f"failed: {name}: all of its cases passed, but the program failed")
    return counts, lines


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
