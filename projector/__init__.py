"""Derives: folds the log into read models, and can prove that they are what the log says."""
