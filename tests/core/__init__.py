"""The ledger alone: without threads or a loop, with a manual clock."""
