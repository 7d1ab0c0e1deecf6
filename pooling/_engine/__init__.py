"""What keeps the state of pools and works on it: the ledger and the budget, pure; the operations over a backend."""
