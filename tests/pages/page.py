"""Pages of commands with their real output: plays them, compares, writes new output into the page."""
import os
import pathlib
import re
import subprocess
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
TOOLS = REPO / ".deps" / "tools"
BLOCK = re.compile(r"```sh\n(?P<call>[^`]*?)\n```\n```(?P<kind>json|text)\n(?P<answer>.*?)```\n", re.DOTALL)
LINES_MAX = 40  # of an answer on a page


class Failure(Exception):
    pass


def shortened(text):
    lines = text.rstrip("\n").split("\n")
    if len(lines) <= LINES_MAX:
        return text
    return "\n".join(lines[:LINES_MAX - 5] + ["..."] + lines[-4:]) + "\n"


def run(command, cwd, build, more=None):
    """Exit code and output of a bash command line that finds the build's programs and the tools."""
    path = f"{build / 'bin'}:{TOOLS / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "PATH": path, **(more or {})})
    return done.returncode, done.stdout + done.stderr


def start_training(command, cwd, build):
    """Starts a `smartpipe train` whose run directory is runs/a; returns when steps are trained."""
    metrics = cwd / "runs" / "a" / "metrics.jsonl"
    before = metrics.stat().st_size if metrics.exists() else 0
    log = open(cwd / "train.log", "a", encoding="utf-8")
    path = f"{build / 'bin'}:{os.environ['PATH']}"
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=cwd, stdout=log, stderr=log, start_new_session=True,
                               env={**os.environ, "PATH": path})
    wait_until(lambda: process.poll() is not None or (metrics.exists() and metrics.stat().st_size > before), "training begins")
    if process.poll() is not None:
        raise Failure("the run did not start:\n" + (cwd / "train.log").read_text(encoding="utf-8"))
    return process


def wait_until(holds, what, timeout_s=180):
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise Failure(f"waited {timeout_s} s until {what}")
        time.sleep(0.05)


def stands(run):
    """True when a paused run has done all steps before its pause; `run` as GetRun tells it."""
    return run.get("paused") and int(run["step"]) == int(run["num_verdicts"]) * int(run["interval_steps"])


def stop(process):
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


def rewrite(page, answers):
    """Puts the answers into the page's blocks, in order."""
    rest = iter(answers)
    text = page.read_text(encoding="utf-8")
    page.write_text(BLOCK.sub(lambda b: f"```sh\n{b['call']}\n```\n```{b['kind']}\n{shortened(next(rest)).rstrip()}\n```\n", text),
                    encoding="utf-8")
