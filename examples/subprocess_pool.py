"""
A pool of worker subprocesses: Python code runs in another process, which is kept for the next request.

Each worker is a Python that reads one JSON request a line and answers with one. A worker that died, or that a
request left in the middle of an answer, is replaced; one whose request ended well serves the next.

    python examples/subprocess_pool.py
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence

from pooling import PoolFactory, di

WORKER = """
import json, math, sys
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"result": eval(request["expression"], {"__builtins__": {}}, vars(math))}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
"""


class Worker:
    """One subprocess and the pipe to it."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def ask(self, expression: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self.process.stdin.write(json.dumps({"expression": expression}) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise ConnectionError(f"worker {self.process.pid} died with status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ArithmeticError(answer["error"])
        result: float = answer["result"]
        return result

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # its loop ends with its input
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class WorkerFactory(PoolFactory[Worker]):
    """How the pool makes, checks and ends its workers."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-c", WORKER)) -> None:
        self.command = command

    def create(self) -> Worker:
        return Worker(self.command)

    def is_alive(self, value: Worker) -> bool:
        return value.is_alive

    def release(self, value: Worker, exc: BaseException | None = None) -> None:
        # An expression that failed is an answer; after anything else a reply may still be on its way.
        if exc is not None and not isinstance(exc, ArithmeticError):
            raise RuntimeError("the worker may be in the middle of an answer") from exc  # so it is destroyed

    def destroy(self, value: Worker) -> None:
        value.close()


class Calculator:
    """A service that has a worker and knows nothing of pools."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def calculate(self, expression: str) -> float:
        return self.worker.ask(expression)


class App(di.Container):
    workers = di.Pool(WorkerFactory(), max_size=2, max_uses=1000)
    worker = di.Pooled(workers)
    calculator = di.Factory(Calculator, worker)


@di.task(App)
@di.inject
def calculate(expression: str, calculator: Calculator = di.Inject[App.calculator]) -> float:
    return calculator.calculate(expression)


def main() -> None:
    app = App()
    with app.running():
        for expression in ("2 ** 10", "sqrt(2)", "factorial(20)"):
            print(f"{expression} = {calculate(expression)}")
        print(app.workers().stats().created, "process(es) started")


if __name__ == "__main__":
    main()
