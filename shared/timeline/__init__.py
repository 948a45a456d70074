"""The timeline store, Apache Cassandra: the tables of its generations, and how to open it.

Nothing imports this room unless DAYBOOK_TIMELINE_URL is set: it needs the driver of Cassandra.
"""
