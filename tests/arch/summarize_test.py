#!/usr/bin/env python3
"""Tests of tests/summarize.py: counts of cases, of programs without a result, of scripts, of nothing."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

SUMMARIZE = pathlib.Path(__file__).resolve().parents[1] / "summarize.py"


def summarize(entries, results):
    """(exit code, last line) for ctest entries name -> (status, skip message) and result files."""
    code, lines = report(entries, results)
    return code, lines[-1]


def report(entries, results, output=""):
    """(exit code, all lines), each program having printed `output`."""
    with tempfile.TemporaryDirectory() as folder:
        cases = "".join(
            f'<testcase name="{name}" status="{status}">'
            + (f'<skipped message="{message}"/>' if message else "")
            + f"<system-out>{output}</system-out></testcase>"
            for name, (status, message) in entries.items())
        pathlib.Path(folder, "ctest.xml").write_text(f"<testsuite>{cases}</testsuite>", encoding="utf-8")
        for name, states in results.items():
            suite = [{"name": f"Case{index}", **state} for index, state in enumerate(states)]
            result = {"testsuites": [{"name": "Suite", "testsuite": suite}]}
            pathlib.Path(folder, f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
        done = subprocess.run([sys.executable, SUMMARIZE, folder], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()


PASSED = {"status": "RUN", "result": "COMPLETED"}
FAILED = {"status": "RUN", "result": "COMPLETED", "failures": [{"failure": "Expected equality"}]}
SKIPPED = {"status": "RUN", "result": "SKIPPED"}
DISABLED = {"status": "NOTRUN", "result": "SUPPRESSED"}


class SummarizeTest(unittest.TestCase):

    def test_counts_cases_and_scripts(self):
        self.assertEqual(
            summarize({"a": ("run", ""), "script": ("run", "")}, {"a": [PASSED, PASSED, SKIPPED, DISABLED]}),
            (0, "3 passed, 0 failed, 2 skipped"))

    def test_counts_failed_cases(self):
        self.assertEqual(summarize({"a": ("fail", "")}, {"a": [PASSED, FAILED]}), (1, "1 passed, 1 failed, 0 skipped"))

    def test_failed_case_says_its_seed_and_its_message(self):
        output = "Seed 7 (repeat with SMARTPIPE_TEST_SEED=7)\n"
        self.assertEqual(
            report({"a": ("fail", "")}, {"a": [FAILED]}, output),
            (1, ["failed: a: Suite.Case0 (SMARTPIPE_TEST_SEED=7)", "    Expected equality",
                 "0 passed, 1 failed, 0 skipped"]))

    def test_failed_script_says_its_first_and_last_lines(self):
        _, lines = report({"a": ("fail", "")}, {}, "\n".join(f"{n} " + "x" * 200 for n in range(20)))
        self.assertEqual([line.split()[0] for line in lines[1:-1]], ["0", "1", "2", "3", "...", "16", "17", "18", "19"])
        self.assertEqual(max(map(len, lines)), 164)

    def test_program_without_result_is_one_failure(self):
        self.assertEqual(summarize({"a": ("fail", ""), "b": ("run", "")}, {}), (1, "1 passed, 1 failed, 0 skipped"))

    def test_program_that_fails_after_its_cases_is_one_failure(self):
        self.assertEqual(summarize({"a": ("fail", "")}, {"a": [PASSED]}), (1, "1 passed, 1 failed, 0 skipped"))

    def test_skipped_script(self):
        self.assertEqual(
            summarize({"a": ("run", ""), "b": ("notrun", "SKIP_RETURN_CODE=77")}, {}),
            (0, "1 passed, 0 failed, 1 skipped"))

    def test_program_that_could_not_start_is_a_failure(self):
        self.assertEqual(
            summarize({"a": ("run", ""), "b": ("notrun", "Unable to find executable")}, {}),
            (1, "1 passed, 1 failed, 0 skipped"))

    def test_nothing_ran_is_an_error(self):
        self.assertEqual(summarize({}, {}), (1, "0 passed, 0 failed, 0 skipped"))


if __name__ == "__main__":
    unittest.main()
