"""
A Django site whose ORM queries run as the user of the request: `current_user` is that user, and policies decide.

python django_site.py setup      # as the app: makes the table and its policy
python django_site.py runserver  # or: gunicorn -k gthread django_site:wsgi; uvicorn django_site:asgi
"""

import sys
from collections.abc import Iterator

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "lakebase.django",
            "OPTIONS": {"per_user": True, "max_size": 3, "max_total": 50, "max_idle": 30.0},
        }
    },
    MIDDLEWARE=["pooling.web.django.RequestContextMiddleware"],
    POOLING={"VALUES": "lakebase.request_identity"},
)
wsgi, asgi = get_wsgi_application(), get_asgi_application()

SCHEMA = """
create table if not exists django_notes (
    id bigint generated always as identity primary key,
    body text not null,
    owner text not null default current_user
);
alter table django_notes enable row level security;
drop policy if exists own on django_notes;
create policy own on django_notes using (owner = current_user);
grant select, insert on django_notes to public;
"""


class CurrentUser(models.Func):  # type: ignore[misc] # Django has no types
    template = "current_user"
    output_field = models.TextField()


class Note(models.Model):  # type: ignore[misc]
    body = models.TextField()
    owner = models.TextField(db_default=CurrentUser())

    class Meta:
        app_label = "notes"
        db_table = "django_notes"
        managed = False


def notes(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        with transaction.atomic():
            Note.objects.create(body=request.body.decode())
    mine = list(Note.objects.order_by("id").values_list("body", "owner"))
    return JsonResponse({"user": who(), "notes": mine})


async def anotes(request: HttpRequest) -> HttpResponse:
    mine = [note async for note in Note.objects.order_by("id").values_list("body", "owner")]
    return JsonResponse({"notes": mine})


def export(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for note in Note.objects.order_by("id").iterator():
            yield f"{note.owner}: {note.body}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well")  # needs no user, since it does not use the database


def who() -> str:
    with connection.cursor() as cursor:
        cursor.execute("select current_user")
        return str(cursor.fetchone()[0])


urlpatterns = [path("notes", notes), path("anotes", anotes), path("export", export), path("health", health)]

if __name__ == "__main__":
    if sys.argv[1:] == ["setup"]:
        with connection.cursor() as cursor:
            cursor.execute(SCHEMA)
        print(f"the table is {who()}'s")
    else:
        execute_from_command_line(sys.argv)
