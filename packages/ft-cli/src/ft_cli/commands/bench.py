"""``ft bench``: what is measured."""

from ft_core.command.run import Entry

TABLE = {
    "serve": Entry(
        "Measure a server as many clients at once see it.", "ft_serve.bench_command:COMMAND"
    ),
}
