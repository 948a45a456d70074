"""The code that every process uses. It imports no other package of Daybook."""
