"""What the tests of apps for threads share."""

import pytest

from tests.web.apps import ThreadSite


@pytest.fixture
def container():
    with ThreadSite().running() as container:
        yield container
