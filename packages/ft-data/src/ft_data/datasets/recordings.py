"""Data sets of audios and videos."""

from __future__ import annotations

from pathlib import PurePosixPath

from ft_data.conversion import BadRowError
from ft_data.datasets.columns import text, turns
from ft_data.formats import Row
from ft_data.formats.media import media_paths


def aishell(row: Row) -> Row:
    """Return a row of aishell: Mandarin and its transcript, which is written with spaces between words."""
    audios = media_paths(row.get("Audio:FILE"), "Audio:FILE")
    if not audios:
        raise BadRowError("there is no audio", "Audio:FILE", "missing_columns")
    transcript = "".join(text(row, "Text:LABEL").split())
    return {"messages": turns("<audio>请把这段语音转写成文字。", transcript), "audios": audios[:1]}


def video_chatgpt(row: Row) -> Row:
    """Return a row of VideoChatGPT, which has one question about a video, or two ways to ask it."""
    name = text(row, "video_name")
    video = name if PurePosixPath(name).suffix else f"{name}.mp4"
    question = text(row, "question", "question_1", "question_2")
    return {"messages": turns(f"<video>{question}", text(row, "answer")), "videos": [video]}
