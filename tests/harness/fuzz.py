"""Sends requests that schemathesis makes from an OpenAPI document, valid and invalid ones, and notes undescribed answers."""

from collections.abc import Collection
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis.core.result import Ok

from tests.harness.keys import bearer

ANSWER_SECONDS = 30
UNLIMITED: Final = {"rate_limit_caller_per_minute": 1_000_000, "rate_limit_address_per_minute": 1_000_000}
"""Settings with which the requests come through."""


def fuzz(document: dict[str, Any], url: str, examples: int, without: Collection[str] = ()) -> tuple[int, list[str]]:
    """Sends `examples` requests to each operation, except for the paths `without`, with the key of the operator.

    Returns the number of requests that passed authentication, and those whose answers are a 500 or are not in the document.
    """
    found = [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations() if isinstance(each, Ok)]
    assert found
    results = [_fuzz_operation(each, url, examples) for each in found if each.path not in without]
    return sum(passed for passed, _ in results), [failure for _, failures in results for failure in failures]


def _fuzz_operation(operation: Any, url: str, examples: int) -> tuple[int, list[str]]:
    passed, failures = 0, []
    # A path that does not fit its pattern may not exist at all.
    expected = {*operation.definition.raw["responses"], "404", "405"}

    @hypothesis_settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        nonlocal passed
        status = case.call(base_url=url, headers=bearer(), timeout=ANSWER_SECONDS).status_code
        passed += status not in {401, 403}
        if status == 500 or str(status) not in expected:
            failures.append(f"{case.method} {case.formatted_path} {case.query} {case.headers} {case.body!r:.500}: {status}")

    ask()
    return passed, failures
