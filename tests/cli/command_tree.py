"""Every command, and the example in its help."""

import re

import click

from unibrain.cli.main import cli


def commands() -> dict[str, click.Command]:
    """Every command by its words, groups included."""
    found: dict[str, click.Command] = {}

    def walk(words: str, command: click.Command) -> None:
        found[words] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                walk(f"{words} {name}".strip(), inner)

    walk("", cli)
    return found


def example(command: click.Command, words: str) -> list[str]:
    """The arguments of the example in a command's help, behind the words of the command itself."""
    found = re.fullmatch(r"Example: unibrain (.+)", command.epilog or "")
    assert found is not None
    assert found[1].split()[: len(words.split())] == words.split()
    return found[1].split()[len(words.split()) :]
