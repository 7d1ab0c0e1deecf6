"""What the operations of a pool run on: threads or an event loop, and what all pools of a process share."""
