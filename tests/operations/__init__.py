"""The operations on a fake backend, interrupted at every `await`."""
