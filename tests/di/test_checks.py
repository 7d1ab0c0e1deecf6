"""The checks of a container before it starts."""

from __future__ import annotations

import pytest
from dependency_injector import containers, providers

from pooling import (
    ConfigurationError,
    RequestContext,
    create_pooled_binding_factory,
    di,
)
from tests.di.parts import Repo, Threaded, User


def starts_with_finding(kind, match):
    with pytest.raises(ConfigurationError, match=match):
        kind().start()
    with pytest.raises(ConfigurationError, match=match):
        kind().check()


@pytest.mark.parametrize("single", [providers.Singleton, providers.ThreadLocalSingleton, providers.Resource])
def test_what_outlives_a_request_may_not_hold_a_pooled_value(single):
    class Captive(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        repo = providers.Factory(Repo, user=user)
        cache = single(Repo, repo)

    starts_with_finding(Captive, rf"cache \({single.__name__}\) -> repo \(Factory\) -> user \(Pooled\)")


def test_a_managed_service_and_members_of_a_pool_may_not_hold_one_either():
    class Captive(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        worker = di.Managed(Repo, user)
        pool = di.Pool(providers.Factory(Repo, user))

    starts_with_finding(Captive, r"worker \(Managed\) -> .*user \(Pooled\)(.|\n)*pool \(Pool\)")


def test_a_singleton_that_has_the_pooled_provider_itself_is_fine():
    class Fine(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        repo = providers.Singleton(Repo, user.provider)

    app = Fine()
    with app.running(), app.request():
        assert app.repo().user() is app.user()


def test_a_captive_value_that_a_test_overrides_is_fine():
    class Captive(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        cache = providers.Singleton(Repo, user)

    app = Captive()
    with app.user.override(User()):
        app.check()


def test_members_that_are_a_singleton_are_found_at_start():
    class Single(di.Container):
        member = providers.Singleton(User)
        pool = di.Pool(member)

    starts_with_finding(Single, "members of pool 'pool' is a Singleton")


def test_members_overridden_by_a_singleton_are_found_at_start():
    class Members(di.Container):
        member = providers.Factory(User)
        pool = di.Pool(member)

    app = Members()
    app.member.override(User())
    with pytest.raises(ConfigurationError, match="gives the same object every time"):
        app.check()


def test_a_member_key_that_leads_nowhere_is_found_at_start():
    class Nowhere(di.Container):
        pool = di.Pool(create_pooled_binding_factory("members.nobody"))

    starts_with_finding(Nowhere, "nothing under the key 'members.nobody'")


def test_a_dependency_that_was_not_provided_is_found_at_start():
    class Open(di.Container):
        url = providers.Dependency(instance_of=str)

    starts_with_finding(Open, r"undefined dependencies: .*Open\.url")


def test_a_marker_that_leads_nowhere_is_found_at_start():
    class Marked(di.Container):
        name = providers.Object("x")

    @di.inject
    def by_key(value=di.Inject[Marked, "nowhere"]):
        pass

    starts_with_finding(Marked, r"by_key: nothing is bound under the key 'nowhere' that value asks for")


def test_functions_and_modules_can_be_checked_too():
    @di.inject
    def by_key(value=di.Inject["services.nowhere"]):
        pass

    app = Threaded()
    app.check()
    with pytest.raises(ConfigurationError, match=r"nothing is bound under the key 'services\.nowhere'"):
        app.check(by_key)
    app.bind("services.nowhere", 1)
    app.check(by_key)


def test_what_is_checked_twice_is_found_once():
    class Own(di.Container):
        pass

    @di.inject
    def function(value=di.Inject[Own, "no.such.key"]):
        pass

    with pytest.raises(ConfigurationError) as caught:
        Own().check(function)
    assert str(caught.value).count("no.such.key") == 1


def test_all_findings_come_at_once():
    class Wrong(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        cache = providers.Singleton(Repo, user)
        member = providers.Singleton(User)
        pool = di.Pool(member)

    with pytest.raises(ConfigurationError) as caught:
        Wrong().start()
    assert str(caught.value).count("\n- ") == 2


# --- containers of dependency-injector, which have no start ----------------------------------------------------------


@pytest.mark.parametrize("kind", [providers.Singleton, providers.ThreadSafeSingleton, providers.Resource])
def test_a_plain_container_whose_singleton_would_keep_a_value_is_refused_at_first_use(kind):
    class Plain(containers.DeclarativeContainer):
        users = di.Pool(User)
        user = di.Pooled(users)
        service = providers.Factory(Repo, user)
        holder = kind(Repo, service)

    plain = Plain()
    for use in (plain.holder, plain.service, plain.user, plain.user):
        with (
            RequestContext(),
            pytest.raises(ConfigurationError, match=r"Plain cannot work: holder \(.*user \(Pooled\)"),
        ):
            use()
    assert plain.users().size == 0


async def test_a_plain_container_is_checked_when_its_value_is_awaited():
    class Plain(containers.DeclarativeContainer):
        users = di.AsyncPool(User)
        user = di.Pooled(users)
        holder = providers.Singleton(Repo, user)

    async with RequestContext():
        with pytest.raises(ConfigurationError, match="Plain cannot work"):
            await Plain().user.aget()


def test_a_plain_container_that_keeps_no_value_can_be_used():
    class Plain(containers.DeclarativeContainer):
        users = di.Pool(User)
        user = di.Pooled(users)
        asking = providers.Singleton(Repo, user.provider)
        service = providers.Factory(Repo, user)

    plain = Plain()
    with RequestContext():
        assert plain.service().user is plain.user() is plain.asking().user()
    plain.users().stop()


def test_another_container_with_such_a_mistake_does_not_matter():
    class Mistaken(containers.DeclarativeContainer):
        users = di.Pool(User)
        user = di.Pooled(users)
        holder = providers.Singleton(Repo, user)

    class Plain(containers.DeclarativeContainer):
        users = di.Pool(User)
        user = di.Pooled(users)

    plain = Plain()
    with RequestContext():
        assert isinstance(plain.user(), User)
    plain.users().stop()
    assert Mistaken is not None
