"""
Every check of this library, by name: `nox --list` shows them, `.ci/run` runs them all in a clean copy of the tree.

The checks of a working tree (tests, linters, type checkers) install nothing: they use the environment that the second
line of README's quick start makes, `.venv`, or else the one that nox itself runs in. The checks of what is shipped
build the package and install it into separate environments below `.nox`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).resolve().parent
DIST = ROOT / "dist"
PACKAGES = ("pooling", "lakebase")
OTHER_PYTHONS = ("3.12", "3.13", "3.14")
# What the engine promises, on one front end and the other; these need neither Postgres nor a web framework.
ENGINE_TESTS = ("tests/operations", "tests/contract", "tests/interrupts")
ENGINE_NEEDS = ("pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "hypothesis")
# pyright counts as unknown what has the engine's fields, whose types it infers, or is based on untyped classes.
KNOWN_TYPES = 0.95
# Draws the pictures of the documentation: of the major version that the theme asks a CDN for.
MERMAID = "mermaid@12.3.0"

# In a clean copy of the tree, what mypy keeps for its next run is work for nothing.
WITHOUT_CACHE = ("--cache-dir", os.devnull) if os.environ.get("CI") == "true" else ()

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "format", "mypy", "pyright", "quick"]
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "uv|virtualenv"
# What pyenv's shims do not offer, and what `.ci/get-python` fetched; last, so that `python3` stays what it is.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
FETCHED = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "lakebase-pooling")
OTHERS = [
    str(folder)
    for version in OTHER_PYTHONS
    for folder in sorted([*PYENV.glob(f"{version}.*/bin"), *FETCHED.glob(f"python{version}/usr/bin")])
]
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *OTHERS])


def python_of_the_tree() -> str:
    """The Python that has the `dev` extra: of `.venv`, or else the one that runs nox."""
    local = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return str(local if local.exists() else sys.executable)


def run_module(session: nox.Session, module: str, *arguments: str) -> None:
    """Run a module in the environment of the tree, with what the caller wrote behind `--`."""
    session.run(python_of_the_tree(), "-m", module, *arguments, *session.posargs, external=True)


# -- the working tree ------------------------------------------------------------------


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """All tests, as in README's quick start: about 11 minutes on two cores."""
    run_module(session, "pytest", "-n", "3", "--dist", "loadfile")


@nox.session(venv_backend="none")
def quick(session: nox.Session) -> None:
    """The tests marked `quick`, which touch each area: less than a minute."""
    run_module(session, "pytest", "-q", "-m", "quick")


@nox.session(venv_backend="none", default=False)
def deep(session: nox.Session) -> None:
    """Draw twenty times as many new examples of what Hypothesis tests as `.ci/run` does; not part of it."""
    files = [path for path in sorted(Path("tests").rglob("test_*.py")) if "hypothesis" in path.read_text("utf-8")]
    run = (python_of_the_tree(), "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", "-o", "timeout=1800")
    session.run(*run, *map(str, files), env={"HYPOTHESIS_PROFILE": "deep"}, external=True)


@nox.session(venv_backend="none", default=False)
def clients(session: nox.Session) -> None:
    """Fetch clients of Lakebase that are not ours, and run each on a local one: Node, JDBC, psql and others."""
    run = (python_of_the_tree(), "-m")
    session.run(*run, "tests.local.other_clients", external=True)
    session.run(*run, "pytest", "-q", "-rs", "tests/local/test_other_clients.py", external=True)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Look for mistakes with ruff."""
    run_module(session, "ruff", "check", ".")


@nox.session(venv_backend="none")
def format(session: nox.Session) -> None:  # noqa: A001
    """Compare the layout with ruff's; `nox -s fix` changes it."""
    run_module(session, "ruff", "format", "--check", ".")


@nox.session(venv_backend="none", default=False)
def fix(session: nox.Session) -> None:
    """Change what ruff can change by itself, and show the examples in the documents as they are. This is no check."""
    run_module(session, "ruff", "check", "--fix", ".")
    run_module(session, "ruff", "format", ".")
    run_module(session, "tests.docs.shown_files")


@nox.session(venv_backend="none")
def mypy(session: nox.Session) -> None:
    """Check the types of the packages with mypy --strict."""
    run_module(session, "mypy", *WITHOUT_CACHE)


@nox.session(venv_backend="none")
def pyright(session: nox.Session) -> None:
    """Check the types of the packages as their users' editors see them."""
    run_module(session, "pyright", "--pythonpath", python_of_the_tree())


@nox.session(default=False)
def recipes(session: nox.Session) -> None:
    """Run the recipes on their frameworks, and check their types, in an environment that has all of these."""
    session.install("-q", "-e", f"{ROOT}[recipes]")
    session.run("mypy", *WITHOUT_CACHE, "--strict", "examples/recipes", "examples/tutorial/app.py")
    session.run(
        "python", "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *(session.posargs or ["tests/recipes"])
    )


@nox.session(default=False)
def clusters(session: nox.Session) -> None:
    """Run the leases in Ray and the recipe for it on a real cluster of this machine, in an environment that has Ray."""
    session.install("-q", "-e", f"{ROOT}[test,ray]")
    tests = session.posargs or ["tests/clusters/test_ray_leases.py", "tests/clusters/test_ray_recipe.py"]
    session.run("python", "-m", "pytest", "-q", *tests)


@nox.session(default=False)
def spark(session: nox.Session) -> None:
    """Run `lakebase.spark` and its recipe on a real cluster of this machine, in an environment that has PySpark."""
    for needed in ("get-java", "get-redis"):  # without them the tests say so
        session.run("bash", str(ROOT / ".ci" / needed), external=True, success_codes=[0, 1])
    session.install("-q", "-e", f"{ROOT}[spark]")
    session.run("mypy", "--strict", "examples/recipes/spark_job.py", "examples/recipes/spark_notebook.py")
    tests = session.posargs or ["tests/clusters/test_spark.py", "tests/recipes/test_spark.py"]
    session.run("python", "-m", "pytest", "-q", *tests)


# -- what is shipped -------------------------------------------------------------------


@nox.session(venv_backend="none", default=False)
def build(session: nox.Session) -> None:
    """Build source distribution and wheel, and look at what is in them."""
    shutil.rmtree(DIST, ignore_errors=True)
    session.run(python_of_the_tree(), "-m", "build", "--outdir", str(DIST), str(ROOT), external=True, silent=True)
    (source,) = DIST.glob("*.tar.gz")
    with zipfile.ZipFile(the_wheel()) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(source) as archive:
        in_source = {name.partition("/")[2] for name in archive.getnames()}
    in_tree = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    surplus = {name for name in in_wheel if ".dist-info/" not in name} - in_tree
    wanted = {"README.md", "CHANGELOG.md", "LICENSE", "noxfile.py", "tests/conftest.py"}
    if not {f"{package}/py.typed" for package in PACKAGES} <= in_tree:
        session.error("py.typed is missing")
    if missing := in_tree - in_wheel:
        session.error(f"not in the wheel: {sorted(missing)}")
    if surplus:
        session.error(f"does not belong in the wheel: {sorted(surplus)}")
    if not any(name.endswith("/licenses/LICENSE") for name in in_wheel):
        session.error("the wheel has no license")
    if missing := wanted - in_source:
        session.error(f"not in the source distribution: {sorted(missing)}")
    session.log(f"{the_wheel().name}: {len(in_wheel)} files; {source.name}: {len(in_source)} files")


@nox.session(requires=["build"], default=False)
def wheel(session: nox.Session) -> None:
    """Install the wheel alone, without any extra but libpq, and import every public name."""
    session.install("-q", f"{the_wheel()}[binary]")
    # Once more by itself: another wheel of the same version may have been here.
    session.install("-q", "--force-reinstall", "--no-deps", str(the_wheel()))
    for module in ("pooling", "pooling.di", "lakebase"):
        names = "[getattr(module, name) for name in module.__all__]"
        code = f"import {module} as module; print(module.__name__, 'exports', len({names}), 'names')"
        session.run("python", "-I", "-W", "error", "-c", code)  # isolated: it does not see the tree
    session.run("lakebase", "--help", silent=True)


@nox.session(requires=["build"], default=False)
def sbom(session: nox.Session) -> None:
    """Write the list of all that the wheel and its extras for users install: dist/sbom.cdx.json."""
    session.install("-q", *(f"{the_wheel()}[{name}]" for name in extras_for_users()))
    session.install("-q", "--force-reinstall", "--no-deps", str(the_wheel()))
    python = Path(session.bin) / ("python.exe" if os.name == "nt" else "python")
    with tempfile.TemporaryDirectory() as tools:  # not into the environment that it lists
        install = ("uv", "pip", "install", "-q", "--target", tools, "cyclonedx-bom~=7.5")
        session.run(python_of_the_tree(), "-m", *install, external=True)
        session.run(
            *(python_of_the_tree(), "-m", "cyclonedx_py", "environment", str(python), "--pyproject", "pyproject.toml"),
            *("--output-reproducible", "--output-file", str(DIST / "sbom.cdx.json")),
            env={"PYTHONPATH": tools},
            external=True,
        )
    parts = json.loads((DIST / "sbom.cdx.json").read_text("utf-8"))["components"]
    session.log(f"{len(parts)} distributions in {DIST / 'sbom.cdx.json'}")


@nox.session(venv_backend="none", requires=["build"], default=False)
def releasable(session: nox.Session) -> None:
    """Look whether the tree can be released: `nox -s releasable -- v1.2.3 https://github.com/OWNER/NAME`."""
    tag, repository = session.posargs or (f"v{project()['version']}", project()["urls"]["Repository"])
    if tag != f"v{project()['version']}":
        session.error(f"the tag {tag} is not that of version {project()['version']} in pyproject.toml")
    session.run(python_of_the_tree(), "-m", "tests.docs.changelog", tag[1:], external=True, silent=True)
    if elsewhere := [url for url in project()["urls"].values() if not url.startswith(repository)]:
        session.error(f"[project.urls] in pyproject.toml lead elsewhere than to {repository}: {elsewhere}")
    built = map(str, sorted(DIST.glob("lakebase_pooling-*")))
    session.run(python_of_the_tree(), "-m", "twine", "check", "--strict", *built, external=True)


@nox.session(default=False)
def workflows(session: nox.Session) -> None:
    """Check the workflows of .github: their form, and what an attacker could make of them."""
    session.install("-q", "zizmor~=1.32", "check-jsonschema~=0.39")
    files = [str(path) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    session.run("zizmor", "--offline", "--quiet", *files)


@nox.session(venv_backend="none", requires=["wheel"], default=False)
def public_types(session: nox.Session) -> None:
    """Let pyright judge the installed wheel: how many public names have a known type."""
    programs = session.cache_dir.parent.resolve() / "wheel" / ("Scripts" if os.name == "nt" else "bin")
    for package in PACKAGES:
        # pyright asks the `python` of the PATH where packages are, whatever --pythonpath says; outside of the tree, so
        # that it finds none there.
        with tempfile.TemporaryDirectory() as elsewhere, session.chdir(elsewhere):
            report = session.run(
                *(python_of_the_tree(), "-m", "pyright", "--ignoreexternal", "--outputjson", "--verifytypes", package),
                env={"PATH": os.pathsep.join([str(programs), os.environ["PATH"]])},
                external=True,
                silent=True,
                success_codes=[0, 1],
            )
        found = json.loads(report)["typeCompleteness"]
        score, count = found["completenessScore"], sum(found["exportedSymbolCounts"].values())
        session.log(f"{package}: {score:.0%} of {count} public names have a known type; {KNOWN_TYPES:.0%} are required")
        if score < KNOWN_TYPES:
            session.error(f"too many public names of {package} have no known type")


@nox.session(venv_backend="none", default=False)
def demo(session: nox.Session) -> None:
    """Run the demo by the first line of README's quick start, in a clean copy."""
    copy = Path(session.create_tmp()) / "tree"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
    line = next(line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if line.endswith("lakebase demo"))
    with session.chdir(copy):
        session.run("bash", "-euo", "pipefail", "-c", line, external=True)


@nox.session(python=OTHER_PYTHONS, default=False)
def engine(session: nox.Session) -> None:
    """Run the engine's tests on the other supported Pythons that this machine has."""
    session.install("-q", "-e", f"{ROOT}[binary]", *requirements("test", ENGINE_NEEDS))
    env = {"CI": None}  # the samples that a developer runs, also in CI: `tests` runs more
    tests = session.posargs or filter(os.path.exists, ENGINE_TESTS)
    session.run("python", "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *tests, env=env)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation into site/ with warnings as errors; `-- serve` shows it while you write."""
    session.install("-q", *extra("docs"))
    if session.posargs[:1] == ["serve"]:
        session.run("zensical", *session.posargs)
        return
    printed = session.run("zensical", "build", "--clean", "--strict", silent=True)
    # What is wrong in a docstring is printed, and does not fail the build.
    if warnings := [line for line in printed.splitlines() if line.startswith("griffe:")]:
        session.error("docstrings that the reference cannot show as meant:\n" + "\n".join(warnings))
    add_mermaid(session)


# -- parts of the above ----------------------------------------------------------------


def add_mermaid(session: nox.Session) -> None:
    """Put what draws pictures into site/, so that they need no internet. Else the theme takes it from a CDN."""
    folder = session.create_tmp()
    packed = Path(folder, f"{MERMAID.replace('@', '-')}.tgz")
    if shutil.which("npm") is not None:
        command = ("npm", "pack", "--silent", MERMAID, "--pack-destination", folder)
        session.run(*command, external=True, silent=True, success_codes=range(256))
    if not packed.exists():
        session.warn("npm did not fetch Mermaid: pictures of the site come from a CDN")
        return
    with tarfile.open(packed) as archive:
        found = archive.extractfile("package/dist/mermaid.min.js")
        assert found is not None
        (ROOT / "site" / "assets" / "javascripts" / "mermaid.min.js").write_bytes(found.read())


def the_wheel() -> Path:
    """The wheel that `build` made."""
    (found,) = DIST.glob("*.whl")
    return found


def settings() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def project() -> dict[str, Any]:
    """What pyproject.toml says of the project."""
    return settings()["project"]  # type: ignore[no-any-return]


def extra(name: str) -> list[str]:
    """The requirements of an extra."""
    return project()["optional-dependencies"][name]  # type: ignore[no-any-return]


def extras_for_users() -> list[str]:
    """The extras that an app installs; the others are for those who work on the library."""
    ours = settings()["tool"]["lakebase-pooling"]["extras-for-developers"]
    return [name for name in project()["optional-dependencies"] if name not in ours]


def requirements(name: str, distributions: tuple[str, ...]) -> list[str]:
    """The requirements of an extra that are of these distributions, with their versions."""
    return [line for line in extra(name) if line.startswith(tuple(f"{each}>" for each in distributions))]
