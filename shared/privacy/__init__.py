"""Encrypts personal data with a key for each person. Deleting the key erases the person."""
