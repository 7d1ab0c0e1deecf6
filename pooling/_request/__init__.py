"""The parts of a request: its values, the resources it holds, and which request is current."""
