"""`lakebase completion`: a script with which a shell completes commands and options, made from the parsers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["add_arguments", "main"]

_INSTALL = {
    "bash": 'add to ~/.bashrc:  eval "$(lakebase completion bash)"',
    "zsh": 'add to ~/.zshrc, after compinit:  eval "$(lakebase completion zsh)"',
    "fish": "run once:  lakebase completion fish > ~/.config/fish/completions/lakebase.fish",
}

_BASH = """\
_lakebase() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} path= before= each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $each" in
            {commands}) path="$path $each" ;;
        esac
        before=$each
    done
    COMPREPLY=()
    case "$path $before" in
{values}
    esac
    case "$path" in
{words}
    esac
}}
complete -o default -F _lakebase lakebase
"""


@dataclass(frozen=True)
class _Level:
    """What may follow some commands: further commands, and options, each with the words that may be its value."""

    path: tuple[str, ...]
    commands: dict[str, str]
    options: dict[str, tuple[str, tuple[str, ...] | None]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `main()`."""
    parser.add_argument("shell", choices=_INSTALL, help="; ".join(f"{shell}: {how}" for shell, how in _INSTALL.items()))


def main(arguments: argparse.Namespace) -> int:
    """Print the script for a shell, and return 0."""
    from .cli import command_names, make_parser

    levels = list(_levels(make_parser(*command_names())))
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](levels), end="")  # noqa: T201
    return 0


def _levels(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[_Level]:
    commands: dict[str, str] = {}
    options: dict[str, tuple[str, tuple[str, ...] | None]] = {}
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = {choice.dest: choice.help or "" for choice in action._choices_actions}
            inner = list(action.choices.items())
        elif action.option_strings:
            values = None if action.nargs == 0 else tuple(map(str, action.choices or ()))
            options.update(dict.fromkeys(action.option_strings, (action.help or "", values)))
        elif action.choices:
            commands = dict.fromkeys(map(str, action.choices), "")
    yield _Level(path, commands, options)
    for name, its_parser in inner:
        yield from _levels(its_parser, (*path, name))


def _bash(levels: list[_Level]) -> str:
    commands = [_quoted((*level.path, name)) for level in levels for name in level.commands]
    values, words = [], []
    for level in levels:
        for option, (_, its_values) in level.options.items():
            if its_values is None:
                continue
            # Without `COMPREPLY`, bash completes the names of files.
            reply = f'COMPREPLY=($(compgen -W "{" ".join(its_values)}" -- "$word")); ' if its_values else ""
            values.append(f"        {_quoted((*level.path, option))}) {reply}return ;;")
        every = " ".join([*level.commands, *level.options])
        words.append(f'        {_quoted(level.path)}) COMPREPLY=($(compgen -W "{every}" -- "$word")) ;;')
    return _BASH.format(commands=" | ".join(commands), values="\n".join(values), words="\n".join(words))


def _quoted(words: tuple[str, ...]) -> str:
    return '"' + "".join(f" {word}" for word in words) + '"'


def _zsh(levels: list[_Level]) -> str:
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash(levels)


def _fish(levels: list[_Level]) -> str:
    lines = ["complete -c lakebase -f"]
    for level in levels:
        seen = [f"__fish_seen_subcommand_from {word}" for word in level.path]
        for name, text in level.commands.items():
            others = " ".join(level.commands)
            when = " && ".join([*seen, f"not __fish_seen_subcommand_from {others}"])
            lines.append(f"complete -c lakebase -n '{when}' -a {name} -d {_fish_text(text)}")
        when = " && ".join(seen) or "__fish_use_subcommand"
        for option, (text, values) in level.options.items():
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            takes = "" if values is None else f" -x -a '{' '.join(values)}'" if values else " -r -F"
            lines.append(f"complete -c lakebase -n '{when}' {kind}{takes} -d {_fish_text(text)}")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    plain = re.sub(r"['\\%]", "", text)
    return f"'{plain}'"
