"""The errors about full-text search. They are apart from `shared.search`, which needs packages that may not be installed."""

from shared.errors import Rejection


class SearchOff(Rejection):
    """There is no search here: it is off."""

    code = "search-off"
