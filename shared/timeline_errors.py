"""The errors about the timeline. They are apart from `shared.timeline`, which needs packages that may not be installed."""

from shared.errors import Rejection


class TimelineOff(Rejection):
    """There is no timeline here: it is off."""

    code = "timeline-off"
