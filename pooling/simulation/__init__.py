"""
What pools would do under a load, found out without the load.

`simulate` runs the rules of the pools and of their budget under a virtual clock: no threads, no resources, no waiting.
"""

from __future__ import annotations

from .elsewhere import SimulationProcesses
from .result import SimulationResult, WaitGoal
from .shared import Kill, Sharing
from .simulator import simulate
from .workload import Workload

__all__ = ["Kill", "Sharing", "SimulationProcesses", "SimulationResult", "WaitGoal", "Workload", "simulate"]
