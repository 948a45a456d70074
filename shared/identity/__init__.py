"""Callers and access: credentials, principals, access rules, rate limits, and the record of denials."""
