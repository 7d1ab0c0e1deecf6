"""`lakebase local …` in its own processes."""

import re
import signal
import subprocess
import sys

import psutil


class Up:
    """A `lakebase local up` that has started; its errors go to a pipe, or to a file for those that may be many."""

    def __init__(self, *arguments, errors=subprocess.PIPE):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lakebase", "local", "up", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        lines = []
        while line := self.process.stdout.readline():
            lines.append(line)
            if line.startswith("# A user's token"):
                break
        self.text = "".join(lines)
        self.environment = dict(re.findall(r"^export (\w+)=(\S+)$", self.text, flags=re.MULTILINE))
        if self.process.poll() is None:
            self.started = psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors

    def __enter__(self):
        assert self.environment, self.process.communicate()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end()
        self.process.stdout.close()
        if self.process.stderr is not None:
            self.process.stderr.close()


def lakebase(*arguments):
    result = subprocess.run([sys.executable, "-m", "lakebase", *arguments], capture_output=True, text=True, timeout=120)
    return result.returncode, result.stdout, result.stderr


def left_behind(home):
    return [path for path in home.rglob("*") if path not in (home / "tmp", home / "run") and path.is_relative_to(home)]
