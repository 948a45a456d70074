"""The deciders: which events each command produces from the states of its streams. They use no I/O, clock, new ids or HTTP."""
