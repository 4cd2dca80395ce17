"""``ft app-ui``: talk to a model in the browser."""

from __future__ import annotations

from pathlib import Path

from ft_cli.commands.infer import GROUPS, prepare_answering, saved_unless_merged
from ft_core.arguments import GenerationArguments, TemplateArguments
from ft_core.command import Command, Invocation
from ft_core.media import MediaLimits
from ft_core.prepare import to_stderr
from ft_data.arguments import DataArguments
from ft_serve.arguments import InferArguments
from ft_ui.arguments import ChatPageArguments

_NO_EFFECT = frozenset(DataArguments.model_fields) | {
    *("eval_human", "show_dataset_sample", "result_file", "verbose", "load_dataset_config")
}
"""Flags of infer that are about rows or the terminal."""


def run(invocation: Invocation) -> None:
    """Load the model and serve the page."""
    from ft_serve.infer.session import open_session
    from ft_serve.openai.media import MediaRules, serving
    from ft_ui.chat.answering import EngineAnswerer
    from ft_ui.chat.collected import RowFiles
    from ft_ui.web.access import choose_password
    from ft_ui.web.serving import import_gradio, serve, take_address
    from ft_ui.web.uploads import LARGEST_FILE, upload_folder
    from ft_ui.words import words_in

    page = invocation.get(ChatPageArguments)
    for name in sorted(_given_in_vain(invocation)):
        to_stderr(f"--{name} has no effect on a chat page")
    password, generated = choose_password(page.auth, page.host, share=page.share)
    import_gradio()
    address = take_address(page.host, page.port)  # a taken port shows before a model is loaded
    # Visitors choose what is read: what they uploaded, and nothing else of this machine or another.
    rules = MediaRules(limits=MediaLimits(max_bytes=LARGEST_FILE, root=upload_folder()))
    prepared = serving(prepare_answering(invocation), rules)
    with open_session(invocation, prepared) as session:
        from ft_ui.pages.chat_page import chat_page
        from ft_ui.pages.panel import Panel

        partner = session.partner
        answerer = EngineAnswerer(partner.engine, partner.template, partner.adapter)
        panel = Panel(
            lambda: answerer,
            invocation.get(GenerationArguments).sampling(),
            RowFiles(Path(page.rows_dir).expanduser().resolve()),
            words_in("en"),
            system=invocation.get(TemplateArguments).system,
            stream=invocation.get(InferArguments).stream,
        )
        if password is not None and generated:
            to_stderr(f"password   user {password.user}, password {password.word}")
        serve(
            chat_page(panel, prepared.name),
            address,
            password=password,
            share=page.share,
            say=to_stderr,
        )


def _given_in_vain(invocation: Invocation) -> frozenset[str]:
    """Return flags a person wrote for this command that have no effect; a checkpoint's own are no news."""
    return frozenset(
        name
        for name in _NO_EFFECT & invocation.set_by_a_person
        if invocation.values[name].source != "checkpoint"
    )


COMMAND = Command(
    "app-ui",
    "Chat with a model in the browser.",
    (*GROUPS, ChatPageArguments),
    run,
    defaults={"max_length": -1},
    saved=saved_unless_merged,
    epilog="ft app-ui --ckpt_dir output/smollm2-135m-instruct/v0-20260101-120000/checkpoint-20",
)
