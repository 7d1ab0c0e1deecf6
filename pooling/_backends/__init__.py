"""Backends: threads or an event loop, on which the operations run, and what all pools of a process share."""
