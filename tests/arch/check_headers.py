#!/usr/bin/env python3
"""Checks that every header compiles alone: it includes all that it uses.

Usage: check_headers.py --build-dir build/release [--jobs 2] [HEADER...]

A header that its own source file includes first is proven by the build; only that it does, and that
it has #pragma once, is looked at here. Each other one, and each one that is named, gets a one-line
source file in BUILD_DIR/header-check/, compiled with the flags of a source file of the same folder
(compile_commands.json). It is compiled to an object, not with -fsyntax-only, because ccache keeps
objects: a repeat costs nothing.
"""
import argparse
import concurrent.futures
import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ["services", "pipeline", "freeze_service", "worker", "cli", "tests"]


def is_proven_by_build(header, folders):
    """True when the build compiles a source file that begins with this header."""
    source = header.with_suffix(".cc")
    if source not in folders.get(header.parent, {}):
        return False
    if "#pragma once" not in header.read_text(encoding="utf-8"):
        return False
    first = re.search(r'^#include (\S+)', source.read_text(encoding="utf-8"), re.MULTILINE)
    return first is not None and first[1] == f'"{header.relative_to(ROOT).as_posix()}"'


def flags_by_folder(build_dir):
    """folder -> {source file: command without input and output}."""
    result = {}
    for entry in json.loads((build_dir / "compile_commands.json").read_text(encoding="utf-8")):
        source = pathlib.Path(entry["directory"], entry["file"]).resolve()
        words = shlex.split(entry["command"])
        for option in ("-o", "-c"):
            while option in words:
                position = words.index(option)
                del words[position:position + 2]
        result.setdefault(source.parent, {})[source] = (words, entry["directory"])
    return result


def flags_for(header, folders):
    """The flags of the source file with the same stem, or of any in this folder or one above it."""
    folder = header.parent
    while folder != ROOT.parent:
        sources = folders.get(folder, {})
        if sources:
            twins = [source for source in sources if source.stem == header.stem]
            return sources[twins[0] if twins else min(sources)]
        inner = sorted(path for path in folders if folder in path.parents)
        if inner:
            return min(folders[inner[0]].items())[1]
        folder = folder.parent
    return None


def compile_alone(header, command, directory, build_dir):
    name = header.relative_to(ROOT).as_posix()
    source = build_dir / "header-check" / (name + ".cc")
    source.parent.mkdir(parents=True, exist_ok=True)
    # Twice: a missing include guard shows, too.
    text = f'#include "{name}"\n#include "{name}"\n'
    if not source.exists() or source.read_text(encoding="utf-8") != text:
        source.write_text(text, encoding="utf-8")
    # A folder without a source file borrows flags from elsewhere; the project's own roots are the same.
    words = command + [f"-I{ROOT}", f"-I{build_dir}/generated", "-O0", "-c", str(source), "-o", str(source.with_suffix(".o"))]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    return name, done.returncode, done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=pathlib.Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("headers", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    build_dir = args.build_dir.resolve()
    try:
        folders = flags_by_folder(build_dir)
    except OSError as error:
        print(f"{error}. Configure first: ./dev build", file=sys.stderr)
        return 1
    headers = [path.resolve() for path in args.headers]
    num_proven = 0
    if not headers:
        every = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.h"))
        headers = [path for path in every if not is_proven_by_build(path, folders)]
        num_proven = len(every) - len(headers)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=args.jobs) as pool:
        tasks = []
        for header in headers:
            flags = flags_for(header, folders)
            if flags is None:
                print(f"{header.relative_to(ROOT)}: no source file near it is compiled; add its folder to CMake")
                failed += 1
            else:
                tasks.append(pool.submit(compile_alone, header, *flags, build_dir))
        for task in tasks:
            name, code, errors = task.result()
            if code:
                failed += 1
                print(f"{name} does not compile alone:\n{errors}")
    print(f"{len(headers) - failed} of {len(headers)} headers compile alone; "
          f"{num_proven} more are the first include of a source file of the build.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
