"""
The picture of docs/growing.md: who shares the limit as an app grows, and where they agree.

`python -m tests.benchmarks.growing docs/growing.png` draws it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PROCESS, STORE, LINE = "#1f6fb4", "#d98a1f", "#8a8f98"

#: Title, the processes of each host, the store, and what is under the picture.
STAGES: list[tuple[str, list[list[str]], str, str]] = [
    ("one process", [["app"]], "", "max_total= or PoolBudget;\nno store"),
    (
        "workers of one host",
        [["worker", "worker", "worker"]],
        "a directory",
        "FileLeases: places of a worker\nthat ends are free at once",
    ),
    (
        "replicas on several hosts",
        [["replica"], ["replica"], ["replica"]],
        "Redis",
        "RedisLeases: places of a replica\nthat ends are free in lease_ttl",
    ),
    (
        "replicas and jobs",
        [["replica"], ["replica"], ["job"]],
        "a table in the database",
        "PostgresLeases: as with Redis,\nand nothing more to operate",
    ),
]


def draw(path: Path) -> None:
    """
    Draw one panel for each stage.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for number, (axes, (title, hosts, store, caption)) in enumerate(zip(panels.flat, STAGES, strict=True), start=1):
        axes.set_xlim(0, 6)
        axes.set_ylim(-0.5, 4.6)
        axes.set_axis_off()
        axes.set_title(f"{number}. {title}", fontsize=14, loc="left")
        _draw_hosts(axes, hosts, store)
        axes.text(3, -0.4, caption, ha="center", va="bottom", fontsize=12)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_hosts(axes: Any, hosts: list[list[str]], store: str) -> None:
    width = 6 / max(len(hosts), len(hosts[0]))
    left = 0.0
    for processes in hosts:
        right = left + width * len(processes)
        _box(axes, left + 0.1, 2.9, right - left - 0.2, 1.5, LINE, "", is_filled=False)
        for number, name in enumerate(processes):
            x = left + width * number
            _box(axes, x + 0.25, 3.15, width - 0.5, 1.0, PROCESS, f"{name}\npools")
            if store:
                axes.annotate(
                    "",
                    (3, 2.05),
                    (x + width / 2, 3.1),
                    arrowprops={"arrowstyle": "<->", "color": STORE, "linewidth": 1.5},
                )
        left = right
    if store:
        _box(axes, 1.2, 1.1, 3.6, 0.9, STORE, f"{store}\nwho has how many places")


def _box(
    axes: Any, x: float, y: float, width: float, height: float, color: str, text: str, *, is_filled: bool = True
) -> None:
    from matplotlib.patches import FancyBboxPatch

    face = color if is_filled else "none"
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", edgecolor=color, facecolor=face
        )
    )
    if text:
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=11.5, color="white")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growing", description=__doc__)
    parser.add_argument("file", type=Path, help=".png, .svg or .pdf")
    draw(parser.parse_args().file)


if __name__ == "__main__":
    main()
