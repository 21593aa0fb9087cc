"""The served API does what its own OpenAPI document says, whatever is sent: schemathesis over every operation."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# the extra `web` is installed by make test-web

import schemathesis
from hypothesis import HealthCheck, given, settings

EXAMPLES = 25
UNDECIDED = [schemathesis.checks.positive_data_acceptance]
"""A document cannot say which bytes are a picture, which uid is there, or how much work is too much."""


def test_every_operation_answers_as_its_document_says(searched):
    document = schemathesis.openapi.from_url(f"{searched}/openapi.json")
    seen = []
    for found in document.get_all_operations():
        operation = found.ok()
        seen.append(operation.label)
        check(operation)
    assert len(seen) >= 15


def check(operation) -> None:
    """Send drawn requests, right and wrong, to one operation."""

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)  # pyright: ignore[reportArgumentType]
    @given(case=operation.as_strategy())
    def answered(case) -> None:
        response = case.call()
        case.validate_response(response, excluded_checks=UNDECIDED)
        assert "Traceback" not in response.text

    answered()
