"""The ledger by itself: no threads, no loop, the time passed by hand."""
