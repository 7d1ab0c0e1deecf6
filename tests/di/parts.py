"""A small application, and the parts the tests build others from."""

from __future__ import annotations

from dependency_injector import providers

from pooling import PoolFactory, di


class User:
    """A pooled resource."""


class Repo:
    def __init__(self, user: User) -> None:
        self.user = user


class Service:
    def __init__(self, repo: Repo, other: Repo) -> None:
        self.repo = repo
        self.other = other


class Recording(PoolFactory):
    """Makes users, and keeps the exceptions that ended their uses."""

    def __init__(self) -> None:
        self.ends: list[BaseException | None] = []

    def create(self) -> User:
        return User()

    def release(self, value: User, exc: BaseException | None = None) -> None:
        self.ends.append(exc)


class App(di.Container):
    config = providers.Configuration()
    users = di.Pool(User, max_size=4)
    reports = di.AsyncPool(User, max_size=4)
    user = di.Pooled(users)
    report = di.Pooled(reports)
    repo = providers.Factory(Repo, user=user)
    areport = providers.Factory(Repo, user=report)
    service = providers.Factory(Service, repo=repo, other=repo)
    aservice = providers.Factory(Service, repo=areport, other=areport)


class Threaded(di.Container):
    users = di.Pool(User, max_size=4)
    user = di.Pooled(users)
    repo = providers.Factory(Repo, user=user)
    service = providers.Factory(Service, repo=repo, other=repo)
