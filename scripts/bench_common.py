"""What the parts of `make bench` share."""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
GARBOARD = TARGET / "x86_64-unknown-linux-gnu/debug/garboard"
MIB = 1 << 20
OUT = Path(os.environ.get("GARBOARD_BENCH_DIR", HERE / "out/bench"))


def run(*command, **options):
    """Runs a command that must succeed; its output is shown only when it does not."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def figures_of(*arguments):
    """What tests print of what they measure, as (what, figure, limit); `arguments` choose them."""
    said = run("cargo", "test", "--quiet", "--workspace", *arguments, cwd=HERE)
    figures = re.findall(r"bench: (.*?) \| (.*?) \| (.*)$", said, re.MULTILINE)
    return figures or sys.exit(f"bench: there are no figures of {' '.join(arguments)}")


def measured(*command):
    """Wall time in seconds and peak resident memory in MiB of one run of a command."""
    figures = OUT / "time"
    run("/usr/bin/time", "-o", figures, "-f", "%e %M", *command)
    seconds, kibibytes = figures.read_text().split()[-2:]
    return float(seconds), int(kibibytes) / 1024


def table(title, head, rows):
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
