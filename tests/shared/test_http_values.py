"""The URL of an API is checked when it is read."""

import pytest

from shared.http_values import read_http_url


@pytest.mark.parametrize("text", ["http://daybook:8000", "http://daybook:8000/", "http://daybook:8000//"])
def test_the_url_of_an_api_ends_without_a_slash_so_that_locations_have_only_one(text: str) -> None:
    assert read_http_url(text) == "http://daybook:8000"


@pytest.mark.parametrize(
    "text",
    ["", "daybook", "ftp://daybook", "http://", "http://[::1", "http://h:port", "http://h:70000", "http://h/?a=b", "http://h h"],
)
def test_any_other_text_is_no_url_of_an_api(text: str) -> None:
    with pytest.raises(ValueError, match="must be a URL"):
        read_http_url(text)
