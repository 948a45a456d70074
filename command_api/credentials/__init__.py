"""Logins and passwords: checks passwords, slows down guessing, and stores no password in plain text."""
