"""The engine: ledger and budget, the pure state of pools; and the operations that change it over a backend."""
