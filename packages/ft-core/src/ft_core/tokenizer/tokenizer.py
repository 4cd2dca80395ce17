"""The tokenizer of a model directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from ft_core.errors import DependencyError, ModelError, UsageError
from ft_core.tokenizer.backends import (
    Backend,
    LibraryBackend,
    PrefixSpace,
    Spans,
    SpecialToken,
    TransformersBackend,
)
from ft_core.tokenizer.files import (
    TokenizerFiles,
    copy_files,
    read_files,
    write_chat_templates,
    write_config,
)


class Tokenizer:
    """Encodes and decodes text for one model.

    It never adds BOS or EOS by itself: a template does, as its format says.

    Args:
        backend: what encodes and decodes.
        files: what the directory's small files say.
        directory: where it was read from; ``None`` for one made in memory.
        extended: whether it has tokens that the files in the directory don't.
    """

    def __init__(
        self,
        backend: Backend,
        files: TokenizerFiles,
        directory: Path | None = None,
        *,
        extended: bool = False,
    ) -> None:
        self._backend = backend
        self._files = files
        self._directory = directory
        self._extended = extended

    @classmethod
    def from_directory(cls, path: str | Path, *, trust_remote_code: bool = False) -> Tokenizer:
        """Read a tokenizer.

        ``tokenizer.json`` is read by the ``tokenizers`` library. Only where there is none, transformers is
        imported to make sense of the other files.

        Args:
            path: the model's directory.
            trust_remote_code: whether Python code in the directory may run; only asked for when there is
                no ``tokenizer.json``.

        Raises:
            ModelError: the directory holds no readable tokenizer.
            DependencyError: it takes transformers to read it, and that is not installed.
        """
        directory = Path(path)
        if not directory.is_dir():
            raise ModelError(
                f"{directory}: no such directory; a tokenizer is read from a model's directory"
            )
        files = read_files(directory)
        file = directory / "tokenizer.json"
        if not file.is_file():
            return cls(_from_transformers(directory, trust_remote_code), files, directory)
        try:
            library = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(
                f"{file} can't be read ({error}); fetch the model's files again"
            ) from error
        _add_named(library, files)
        return cls(LibraryBackend(library), files, directory)

    @property
    def directory(self) -> Path | None:
        """Where it was read from."""
        return self._directory

    @property
    def vocab_size(self) -> int:
        """Number of entries, added tokens included."""
        return self._backend.vocab_size

    def reads_like(self, other: Tokenizer) -> bool:
        """Whether each id stands for the same token in another tokenizer, so that their ids can be exchanged."""
        size = self.vocab_size
        return size == other.vocab_size and all(
            self.id_to_token(index) == other.id_to_token(index) for index in range(size)
        )

    @property
    def prefix_space(self) -> PrefixSpace:
        """Where it puts a space of its own in front of text."""
        return self._backend.prefix_space

    @property
    def special_tokens(self) -> tuple[SpecialToken, ...]:
        """All special tokens, by id."""
        return self._backend.special_tokens

    @property
    def named_tokens(self) -> Mapping[str, str]:
        """``bos_token``, ``eos_token`` and their kin as far as there are any; chat templates see them."""
        return self._files.named

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever some text would be encoded to other ids."""
        facts = json.dumps([dict(self._files.named), self.eos_token_ids], sort_keys=True).encode()
        return hashlib.sha256(self._backend.content() + facts).hexdigest()[:32]

    @property
    def chat_template(self) -> str | None:
        """Its own Jinja chat template; of several named ones the default."""
        return self._files.chat_templates.get("default")

    @property
    def chat_templates(self) -> Mapping[str, str]:
        """All its Jinja chat templates by name (``default``, ``tool_use``, …)."""
        return self._files.chat_templates

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text."""
        return self._files.named.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text."""
        return self._files.named.get("eos_token")

    @property
    def pad_token(self) -> str | None:
        """The token that fills up a batch."""
        return self._files.named.get("pad_token")

    @property
    def bos_token_id(self) -> int | None:
        """Id of ``bos_token``."""
        return self.named_token_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Id of ``eos_token``."""
        return self.named_token_id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """Id of ``pad_token``."""
        return self.named_token_id("pad_token")

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer: ``eos_token`` and those of the generation configuration."""
        own = () if self.eos_token_id is None else (self.eos_token_id,)
        return tuple(dict.fromkeys((*own, *self._files.eos_token_ids)))

    def named_token_id(self, name: str) -> int | None:
        """Return the id of ``bos_token``, ``eos_token``, …; ``None`` if there is no such token."""
        text = self._files.named.get(name)
        if text is None and isinstance(other := self._files.config.get(name), str):
            text = other
        return None if text is None else self.token_to_id(text)

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the tokenizer itself would put BOS before a text."""
        if self.bos_token_id is None:
            return False
        configured = self._files.config.get("add_bos_token")
        if isinstance(configured, bool):
            return configured
        return self._backend.encode_empty()[:1] == [self.bos_token_id]

    def encode(self, text: str, *, special: bool = True, continues: bool = False) -> list[int]:
        """Return the ids of a text, without BOS or EOS.

        Args:
            text: any text.
            special: whether text that looks like a special token becomes that token; else it stays text.
            continues: the text follows other text, so SentencePiece's prefix space must not be added.
        """
        return self._backend.encode_batch([text], special=special, continues=continues)[0]

    def encode_batch(
        self, texts: Sequence[str], *, special: bool = True, continues: bool = False
    ) -> list[list[int]]:
        """Encode many texts at once; see ``encode``."""
        return self._backend.encode_batch(texts, special=special, continues=continues)

    def encode_with_spans(
        self, text: str, *, continues: bool = False
    ) -> tuple[list[int], Spans] | None:
        """Return the ids of a text in which nothing is special and the characters each came from.

        ``None`` where the tokenizer can't tell.
        """
        return self._backend.encode_with_spans(text, continues=continues)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of ``ids``."""
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def token_to_id(self, token: str) -> int | None:
        """Return the id of exactly this token, or ``None``."""
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """Return the token with this id, or ``None``."""
        return self._backend.id_to_token(token_id)

    def with_tokens(self, texts: Sequence[str]) -> Tokenizer:
        """Return a tokenizer that has further tokens, which are matched as a whole wherever they stand.

        Texts that are tokens already keep their ids, and the tokenizer that has them all is returned itself.

        Raises:
            UsageError: a text is empty or begins or ends with white space, or the tokenizer is written in
                Python and can't tell such tokens from special ones.
        """
        for text in texts:
            if not text.strip() or text != text.strip():
                raise UsageError(
                    f"--new_special_tokens {text!r}: a token can't be empty or begin or end with white space"
                )
        fresh = [text for text in dict.fromkeys(texts) if self.token_to_id(text) is None]
        if not fresh:
            return self
        backend = self._backend.with_tokens(fresh)
        if backend is None:
            raise UsageError(
                f"--new_special_tokens {fresh[0]}: the tokenizer in {self._directory} has no tokenizer.json, and "
                "one written in Python can't take further tokens here; convert it first"
            )
        return Tokenizer(backend, self._files, self._directory, extended=True)

    def save(self, directory: str | Path, *, chat_template: str | None = None) -> None:
        """Write everything transformers' ``AutoTokenizer`` needs.

        Args:
            directory: is made if it doesn't exist.
            chat_template: Jinja text that replaces all of the tokenizer's own; ``None`` keeps them.
        """
        target = Path(directory)
        target.mkdir(parents=True, exist_ok=True)
        if self._directory is not None:
            copy_files(self._directory, target)
        if self._extended or not (target / "tokenizer.json").is_file():
            self._backend.save(target)
        write_config(target, self._files)
        templates = (
            self._files.chat_templates if chat_template is None else {"default": chat_template}
        )
        write_chat_templates(target, templates)


def _add_named(library: Any, files: TokenizerFiles) -> None:
    """Make the tokens that the small files call special special, as transformers does on loading."""
    special = {
        token.content for token in library.get_added_tokens_decoder().values() if token.special
    }
    missing = [text for text in (*files.named.values(), *files.added) if text not in special]
    if missing:
        library.add_special_tokens(
            [
                tokenizers.AddedToken(text, special=True, normalized=False)
                for text in dict.fromkeys(missing)
            ]
        )


def _from_transformers(directory: Path, trust_remote_code: bool) -> Backend:
    from ft_core.models.remote_code import tokenizer_code

    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise DependencyError(
            f"{directory} (it has no tokenizer.json)",
            "transformers",
            "pip install 'ft-core[model]'",
        ) from error
    try:
        loaded = AutoTokenizer.from_pretrained(str(directory), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        if not trust_remote_code and (code := tokenizer_code(directory)):
            raise ModelError(
                f"{directory}: its tokenizer is Python code of its own ({', '.join(code)}), which runs only with "
                "--trust_remote_code true; read that code first"
            ) from error
        raise ModelError(
            f"{directory}: no tokenizer.json, and transformers can't make a tokenizer of the other files: {error}"
        ) from error
    if isinstance(loaded, PreTrainedTokenizerFast):
        return LibraryBackend(loaded.backend_tokenizer)
    return TransformersBackend(loaded)
