"""The page of licences has all that the packages and their extras install."""

from tests.docs.licences import dependencies, licence_of, listed

WRITE = "`python -m tests.docs.licences` writes the table"


def test_the_page_has_each_dependency():
    assert set(listed()) == set(dependencies()), WRITE


def test_each_licence_is_the_one_that_the_distribution_has():
    installed = {name: licence_of(name) for name in listed()}
    assert {name: licence for name, licence in listed().items() if installed[name] not in {licence, None}} == {}, WRITE
    assert sum(licence is not None for licence in installed.values()) > 15
