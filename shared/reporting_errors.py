"""The errors about SQL reporting. They are apart from `shared.reporting`, which needs packages that may not be installed."""

from shared.errors import BadRequest, OperatorError, Rejection


class ReportingOff(Rejection):
    """There are no reports here: SQL reporting is off."""

    code = "reporting-off"


class ParquetOff(BadRequest):
    """There are no Parquet files here: the package pyarrow is not installed."""

    code = "parquet-off"


class StatementInvalid(OperatorError):
    """The reporting database does not understand the statement."""

    code = "statement-invalid"


class StatementDenied(OperatorError):
    """The reporting database denied the statement, or the login."""

    code = "statement-denied"
