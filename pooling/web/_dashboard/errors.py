"""What a request to the page cannot have."""

from __future__ import annotations

__all__ = ["RefusedError"]


class RefusedError(Exception):
    """
    The answer to a request is an error.

    Args:
        status: The status of the answer.
        sentence: What is wrong and what to do, for the one who asked.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]
