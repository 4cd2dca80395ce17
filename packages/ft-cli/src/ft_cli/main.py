"""The table of commands; nothing else is imported until one of them is used."""

from __future__ import annotations

from collections.abc import Sequence

from ft_core.command.run import Entry, run_commands

TABLE = {
    "sft": Entry("Fine-tune a model on conversations.", "ft_cli.commands.sft:SFT"),
    "pt": Entry("Continue pre-training a model on plain text.", "ft_cli.commands.sft:PT"),
    "rlhf": Entry(
        "Align a model with preferences or labelled answers.", "ft_cli.commands.rlhf:COMMAND"
    ),
    "infer": Entry("Answer a dataset, or chat in the terminal.", "ft_cli.commands.infer:COMMAND"),
    "deploy": Entry(
        "Serve a model over HTTP, as OpenAI's clients expect it.", "ft_cli.commands.deploy:COMMAND"
    ),
    "app-ui": Entry("Chat with a model in the browser.", "ft_cli.commands.app_ui:COMMAND"),
    "web-ui": Entry(
        "Train, evaluate, export and serve models in the browser.",
        "ft_cli.commands.web_ui:COMMAND",
    ),
    "merge-lora": Entry(
        "Fold an adapter into its base model.", "ft_cli.commands.merge_lora:COMMAND"
    ),
    "export": Entry(
        "Merge, quantize, convert and publish a model, and prove that it works.",
        "ft_cli.commands.export:COMMAND",
    ),
    "eval": Entry(
        "Evaluate models on benchmarks or questions of your own, with intervals.",
        "ft_cli.commands.eval:COMMAND",
    ),
    "compare": Entry(
        "Compare evaluations: which differences are no noise.", "ft_eval.compare_command:COMMAND"
    ),
    "preview": Entry(
        "Show rendered rows with the trained tokens marked.", "ft_cli.commands.preview:COMMAND"
    ),
    "data": Entry("Check, preview, encode or convert rows.", "ft_data.console:TABLE"),
    "list": Entry("List models, templates or datasets.", "ft_cli.commands.listing:COMMAND"),
    "runs": Entry(
        "List runs with their status and best checkpoint.", "ft_cli.commands.runs:COMMAND"
    ),
    "doctor": Entry(
        "Show this machine, what is installed and what will be used.",
        "ft_cli.commands.doctor:COMMAND",
    ),
    "bench": Entry("Measure a server.", "ft_cli.commands.bench:TABLE"),
    "config-schema": Entry(
        "Print the JSON schema of a command's config file.", "ft_cli.commands.config_schema:COMMAND"
    ),
}

INTRO = "ft: fine-tune, align, quantize, evaluate and serve language models."


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ft`` and return its exit code."""
    return run_commands("ft", TABLE, argv, distribution="ft-cli", intro=INTRO)
