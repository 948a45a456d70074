"""Answers questions from the read models, and says as of which position of the log each answer is."""
