"""How the processes log: to stdout, a line for each thing worth knowing, and never what a person is called."""

import structlog


def configure_logs() -> None:
    """Tracebacks without the values of variables: structlog's own show them, and with them names, addresses and amounts."""
    *others, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, plain])
