"""The search store, OpenSearch: the mappings of its indexes, and how to open it.

Nothing imports this room unless DAYBOOK_SEARCH_URL is set: it needs the client of OpenSearch.
"""
