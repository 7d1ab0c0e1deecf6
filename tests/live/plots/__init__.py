"""Pictures of real runs: connections of each user over time, waits, and what the pools did."""
