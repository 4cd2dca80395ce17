"""Which language a text is in: by its letters, and for Latin ones by its most frequent words."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

_LOOKED_AT: Final = 2000
"""Characters of a text that are looked at."""

_SCRIPTS: Final = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af\u1100-\u11ff]"),
    "zh": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "bn": re.compile(r"[\u0980-\u09ff]"),
    "ta": re.compile(r"[\u0b80-\u0bff]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
    "he": re.compile(r"[\u0590-\u05ff]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
}
_WEIGHT: Final = {"zh": 3, "ja": 3, "ko": 2}
"""How many Latin letters a character of a script says as much as."""

_WORDS: Final = {
    "en": "the of and to in is that for it with as are you this be on what how a an i",
    "de": "der die das und ist nicht ein eine zu den von mit sich auf für wie was ich sie es",
    "fr": "le la les des et est un une que dans pour qui sur pas avec vous je il du ce",
    "es": "el la los las de que y en un una es por con para como no se qué del su",
    "pt": "o os as de que e em um uma é por com para como não se do da você no",
    "it": "il lo la gli di che e un una è per con non come sono del della in si cosa",
    "nl": "de het een en van is dat op te in voor met niet zijn wat hoe je ik er aan",
    "pl": "i w na nie że to się z do jest jak co dla od po czy są tym przez który",
    "tr": "ve bir bu için ile de da ne nasıl olarak çok daha gibi en var mı değil ben sen",
    "vi": "là và của có một những cho không được trong với các người này để tôi bạn như khi từ",
    "id": "yang dan di ini itu untuk dengan dari pada adalah tidak dalam akan ke apa bagaimana saya ada",
    "sv": "och att det som en på är av för med den till inte ett om vad hur jag du har",
}
_LANGUAGES_OF: Final = {
    word: [language for language, words in _WORDS.items() if word in words.split()]
    for words in _WORDS.values()
    for word in words.split()
}


def language_of(text: str) -> str:
    """Tell a text's language.

    Returns:
        An ISO 639-1 code; ``latin`` for Latin letters without frequent words of a known language, such as code;
        ``none`` for a text without letters. Languages that share letters with a more frequent one are called by it
        (``ru``, ``ar``, ``hi``).
    """
    seen = text[:_LOOKED_AT]
    counts = {
        script: len(pattern.findall(seen)) * _WEIGHT.get(script, 1)
        for script, pattern in _SCRIPTS.items()
    }
    if counts["ja"] and counts["ja"] * 10 >= counts["zh"]:  # Japanese has Chinese characters too
        counts["ja"] += counts["zh"]
        counts["zh"] = 0
    script = max(counts, key=lambda name: counts[name])
    if not counts[script]:
        return "none"
    return _latin(seen) if script == "latin" else script


def _latin(text: str) -> str:
    votes: Counter[str] = Counter()
    for word in re.findall(r"[^\W\d_]+", text.lower()):
        languages = _LANGUAGES_OF.get(word, ())
        for language in languages:
            votes[language] += 60 // len(languages)
    return votes.most_common(1)[0][0] if votes else "latin"
