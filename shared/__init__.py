"""The vocabulary and the log: what every process needs and none owns. Imports nothing of ours outside itself."""
