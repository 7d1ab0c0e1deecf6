"""Interrupts between any two bytecodes: real signals whose handlers raise, while a pool is used."""
