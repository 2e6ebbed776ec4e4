"""What the scripts beside this file share: building the project's programs, and a broker that
discards what it gets, in a process of its own."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOPIC = "perf"


def fail(message):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {message}")


def target_folder():
    """Where cargo puts what it builds; peers are built below it too."""
    return os.path.abspath(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")))


def build():
    """Builds the programs; gives the folder that they are in."""
    names = ["--example", "producer_perf", "--example", "discarding_broker"]
    if subprocess.run(["cargo", "build", "--release", *names], cwd=ROOT).returncode:
        fail("cargo could not build the examples")
    return os.path.join(target_folder(), "release", "examples")


class Broker:
    """Runs while the `with` block does; `records` is then what it has counted."""

    def __init__(self, folder, partitions=4):
        program = os.path.join(folder, "discarding_broker")
        self.command = [program, "--topic", TOPIC, "--partitions", str(partitions)]

    def __enter__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(self.command, **pipes)
        line = self.process.stdout.readline().strip()
        self.records, self.address = None, line.removeprefix("listening=")
        if self.address == line:
            fail(f"the broker did not start: {line!r}")
        return self

    def __exit__(self, *_):
        said, _ = self.process.communicate()
        if said.startswith("records="):
            self.records = int(said.strip().removeprefix("records="))
