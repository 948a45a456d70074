"""The tables of SQL reporting, which people and programs query: their definition, their migrations, and how to open them.

Nothing imports this room unless DAYBOOK_REPORTING_URL is set: it needs SQLModel and the driver of one database.
"""
