"""The gateway of a local Lakebase: TLS, minted tokens as passwords, faults, and scale to zero."""

from .certificates import Certificates
from .compute import Compute, State, WhileWaking, check_while_waking
from .faults import GatewayFaults
from .gateway import Gateway, Route
from .listener import Listener

__all__ = [
    "Certificates",
    "Compute",
    "Gateway",
    "GatewayFaults",
    "Listener",
    "Route",
    "State",
    "WhileWaking",
    "check_while_waking",
]
