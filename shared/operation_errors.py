"""The rejection about operations on read models: see `shared.errors`."""

from shared.errors import Rejection


class OperationUnderWay(Rejection):
    """Another operation on this read model is under way."""

    code = "operation-under-way"
    retryable = True
