"""The operations and the fast path, interrupted wherever that can happen."""
